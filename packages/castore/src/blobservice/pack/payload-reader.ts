import { read } from "node:fs";
import { promisify } from "node:util";
import { systemError } from "../../model/system-error.ts";
import type { ChunkLocation } from "./chunk-index.ts";
import type { PackDescriptors } from "./pack-descriptors.ts";
import { runsOf } from "./read-chunks.ts";

const readFile = promisify(read);

/** Payloads with at most this many bytes between them, such as a header, are read at once. */
const MAX_GAP = 1024;

/**
 * Reads payloads as they are stored, in the thread pool of Node.js: neither this thread nor a lane waits for the disk.
 */
export class PayloadReader {
  readonly #packs: PackDescriptors;

  constructor(packs: PackDescriptors) {
    this.#packs = packs;
  }

  /**
   * Reads the payloads of chunks, in order. One that is missing in part is shorter than its location says.
   *
   * @param memory returns memory of so many bytes for all of them, which is theirs from then on
   * @throws CastoreError by cause if the system refuses to read
   */
  async read(
    locations: readonly ChunkLocation[],
    memory: (length: number) => Uint8Array,
  ): Promise<Uint8Array[]> {
    const runs = [...runsOf(locations, MAX_GAP)];
    const bytes = memory(runs.reduce((sum, { length }) => sum + length, 0));
    const payloads: Uint8Array[] = [];
    let at = 0;
    for (const { pack, offset, length, chunks } of runs) {
      const run = bytes.subarray(at, at + length);
      const filled = await this.#readPack(pack, offset, run);
      for (const location of chunks) {
        const start = location.offset - offset;
        payloads.push(run.subarray(start, Math.min(start + location.storedSize, filled)));
      }
      at += length;
    }
    return payloads;
  }

  /** Reads a range of a pack. Returns how much of it there is: nothing if the pack does not exist. */
  async #readPack(pack: number, offset: number, target: Uint8Array): Promise<number> {
    try {
      const fd = this.#packs.take(pack);
      try {
        let filled = 0;
        while (filled < target.length) {
          const left = target.length - filled;
          const { bytesRead } = await readFile(fd, target, filled, left, offset + filled);
          if (bytesRead === 0) break;
          filled += bytesRead;
        }
        return filled;
      } finally {
        this.#packs.give(pack);
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return 0;
      throw systemError(error, `Cannot read pack "${this.#packs.pathOf(pack)}"`);
    }
  }
}
