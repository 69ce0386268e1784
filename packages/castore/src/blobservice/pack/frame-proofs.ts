import type { B3Digest } from "../../model/digest.ts";

/** How many proofs are remembered, a power of two. They take 16 bytes each. */
const SLOTS = 256 * 1024;

/**
 * Remembers 64 bits of the digest of each payload that was verified, by the digest of its chunk, so that the same payload need
 * not be decoded again. The table has a fixed size: a new proof replaces the one in its slot.
 */
export class FrameProofs {
  #table: BigUint64Array | undefined;

  /** Returns the proof of a chunk; 0 if there is none. */
  get(digest: B3Digest): bigint {
    if (this.#table === undefined) return 0n;
    const { slot, key } = placeOf(digest);
    return this.#table[slot] === key ? this.#table[slot + 1]! : 0n;
  }

  /** Remembers the proof of a chunk, not 0; 0 forgets it. */
  set(digest: B3Digest, proof: bigint): void {
    this.#table ??= new BigUint64Array(2 * SLOTS);
    const { slot, key } = placeOf(digest);
    this.#table[slot] = key;
    this.#table[slot + 1] = proof;
  }
}

function placeOf({ bytes }: B3Digest): { slot: number; key: bigint } {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return { slot: (view.getUint32(8, true) & (SLOTS - 1)) * 2, key: view.getBigUint64(0, true) };
}
