import type { ChunkLocation } from "./chunk-index.ts";
import type { PackDescriptors } from "./pack-descriptors.ts";
import { runsOf } from "./read-chunks.ts";

/** Payloads with at most this many bytes between them, such as a header, are read at once. */
const MAX_GAP = 1024;

/**
 * Short reads that somebody waits for are made in the calling thread: to wake another takes longer, where the disk is fast.
 * After one that was slow, some are left to the thread pool.
 */
const SHORT_BYTES = 256 * 1024;
const SLOW_READ_MS = 1;
const READS_AFTER_SLOW = 64;

/**
 * Reads payloads as they are stored, in the thread pool of Node.js but for short ones that are urgent: neither this thread nor a
 * lane waits for a slow disk.
 */
export class PayloadReader {
  readonly #packs: PackDescriptors;
  /** How many of the next short reads are left to the thread pool. */
  #elsewhere = 0;

  constructor(packs: PackDescriptors) {
    this.#packs = packs;
  }

  /**
   * Reads the payloads of chunks, in order. One that is missing in part is shorter than its location says.
   *
   * @param memory returns memory of so many bytes for all of them, which is theirs from then on
   * @param options.isUrgent whether the calling thread reads, if that is short and the disk was fast. Default: false
   * @throws CastoreError by cause if the system refuses to read
   */
  async read(
    locations: readonly ChunkLocation[],
    memory: (length: number) => Uint8Array,
    { isUrgent = false }: { isUrgent?: boolean } = {},
  ): Promise<Uint8Array[]> {
    const runs = [...runsOf(locations, MAX_GAP)];
    const bytes = memory(runs.reduce((sum, { length }) => sum + length, 0));
    const isShort = runs.length === 1 && bytes.length <= SHORT_BYTES;
    const isHere = isUrgent && isShort && this.#elsewhere === 0;
    if (isUrgent && isShort && !isHere) this.#elsewhere -= 1;
    const payloads: Uint8Array[] = [];
    let at = 0;
    for (const { pack, offset, length, chunks } of runs) {
      const run = bytes.subarray(at, at + length);
      const filled = isHere
        ? this.#readHere(pack, offset, run)
        : await this.#packs.read(pack, offset, run);
      for (const location of chunks) {
        const start = location.offset - offset;
        payloads.push(run.subarray(start, Math.min(start + location.storedSize, filled)));
      }
      at += length;
    }
    return payloads;
  }

  /** Reads a range of a pack in this thread, and notes whether the disk is slow. */
  #readHere(pack: number, offset: number, target: Uint8Array): number {
    const startMs = performance.now();
    try {
      return this.#packs.readSync(pack, offset, target);
    } finally {
      if (performance.now() - startMs > SLOW_READ_MS) this.#elsewhere = READS_AFTER_SLOW;
    }
  }
}
