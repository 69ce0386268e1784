import { zstdCodec } from "../compression/zstd-codec.ts";
import { faultOfFrame } from "../compression/zstd-frame.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import { B3Digest } from "../model/digest.ts";
import { MAX_CHUNK_BYTES } from "../model/limits.ts";
import type { StoredBlob } from "./blob-service.ts";

/**
 * Decompresses a blob that comes in its stored form from somewhere else, and compares its digest.
 *
 * @param digest its 32 bytes
 * @param target takes the contents: as long as they are expected to be. Its bytes mean nothing unless it returns `true`
 * @returns whether they have that length and digest
 */
export function verifyStored(stored: StoredBlob, digest: Uint8Array, target: Uint8Array): boolean {
  if ("contents" in stored) {
    if (stored.contents.length !== target.length) return false;
    target.set(stored.contents);
  } else {
    const { frame } = stored;
    if (faultOfFrame(frame, target.length, MAX_CHUNK_BYTES) !== undefined) return false;
    if (!zstdCodec().decompress(frame, target)) return false;
  }
  return blake3Digest(target).equals(B3Digest.fromBytes(digest));
}
