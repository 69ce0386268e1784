import { blake3Digest } from "../../hash/blake3-digest.ts";

/** The checksum of a payload that was never verified. */
export const NO_CHECKSUM = 0;

/**
 * Returns the first 52 bits of the BLAKE3 digest of a payload, but never {@link NO_CHECKSUM}. The index holds it for each
 * chunk that was seen to match its digest, so that a frame can be passed on without decompressing it.
 */
export function payloadChecksum(payload: Uint8Array): number {
  const { buffer, byteOffset } = blake3Digest(payload).bytes;
  const view = new DataView(buffer, byteOffset);
  return view.getUint32(0) * 2 ** 20 + (view.getUint32(4) >>> 12) || 1;
}
