import { crc32 } from "node:zlib";

/** The checksum of a payload that was never verified. */
export const NO_CHECKSUM = 0;

/**
 * Returns the CRC-32 of a payload and one, so that it is never {@link NO_CHECKSUM}. The index holds it for each chunk that was
 * seen to match its digest: a frame can then be passed on without decompressing it, and what the disk has changed is noticed.
 */
export function payloadChecksum(payload: Uint8Array): number {
  return crc32(payload) + 1;
}
