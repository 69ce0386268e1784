import { concatBytes } from "../bytes/byte-string.ts";
import { B3Digest } from "../model/digest.ts";
import { type Blake3Hasher, blake3 } from "./blake3.ts";
import { blake3Digest } from "./blake3-digest.ts";

/** Computes the digest of a blob that arrives in pieces. Hashes a small blob in one call, much faster than a hasher. */
export class BlobHasher {
  /** Blobs up to this many bytes are buffered and hashed by one call. */
  static readonly MAX_HELD_BYTES: number = 64 * 1024;

  #held: Uint8Array[] = [];
  #heldBytes = 0;
  #hasher: Blake3Hasher | undefined;

  /** Adds bytes. Those of a blob of up to 64 KiB must not change before {@link digest}. */
  update(data: Uint8Array): void {
    if (this.#hasher === undefined) {
      this.#heldBytes += data.length;
      this.#held.push(data);
      if (this.#heldBytes <= BlobHasher.MAX_HELD_BYTES) return;
      this.#hasher = blake3.createHasher();
      for (const part of this.#held) this.#hasher.update(part);
      this.#held = [];
    } else {
      this.#hasher.update(data);
    }
  }

  /** Returns the digest of all bytes added. Called once, last, also when a blob is abandoned, as it frees memory. */
  digest(): B3Digest {
    if (this.#hasher === undefined) return blake3Digest(concatBytes(this.#held));
    return B3Digest.fromBytes(this.#hasher.digest());
  }
}
