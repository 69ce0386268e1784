import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import type { B3Digest } from "../../model/digest.ts";
import { type Task, taskOf } from "../../worker/lane.ts";
import { laneCount, runTask } from "../../worker/lanes.ts";
import type { SlabPool } from "../../worker/slab-pool.ts";
import type { ChunkList, ChunkMeta } from "../chunk-list.ts";
import { PieceHasher } from "../verify-blob.ts";
import type { ChunkIndex, ChunkLocation } from "./chunk-index.ts";
import type * as lane from "./decode-chunks.ts";
import { packPath } from "./pack-files.ts";
import type { PackIngest } from "./pack-ingest.ts";

const DECODE_CHUNKS: Task<typeof lane.decodeChunks> = taskOf(
  import.meta.url,
  "decode-chunks",
  "decodeChunks",
);

/** Most chunks that go to a lane together. */
const BATCH_CHUNKS = 512;

/** Chunks of a list in a row, on their way through a lane. */
interface Batch {
  readonly slab: SharedArrayBuffer;
  readonly length: number;
  readonly decoded: Promise<boolean>;
}

/** Finds out whether stored chunks make up a blob: lanes decode them, and nothing but the whole is hashed. */
export class ListProver {
  readonly #folder: string;
  readonly #index: ChunkIndex;
  readonly #slabs: SlabPool;
  readonly #slabBytes: number;

  constructor(folder: string, index: ChunkIndex, ingest: PackIngest) {
    this.#folder = folder;
    this.#index = index;
    this.#slabs = ingest.newSlabs(laneCount() + 1);
    this.#slabBytes = ingest.contentsBytes;
  }

  /** Tells whether chunks were seen to make up a blob. Where not, it does not tell why. */
  async proves(digest: B3Digest, chunks: ChunkList, options?: AbortOptions): Promise<boolean> {
    using hasher = new PieceHasher();
    const ahead: Batch[] = [];
    /** Hashes the first of the batches. */
    const take = async (): Promise<boolean> => {
      const { slab, length, decoded } = ahead[0]!;
      const isDecoded = await decoded;
      if (isDecoded) hasher.update(new Uint8Array(slab, 0, length));
      ahead.shift();
      this.#slabs.give(slab);
      return isDecoded;
    };
    try {
      for (const batch of chunks.batches(BATCH_CHUNKS, this.#slabBytes)) {
        options?.signal?.throwIfAborted();
        const task = this.#taskFor(batch);
        if (task === undefined) return false;
        let slab: SharedArrayBuffer | undefined;
        while (slab === undefined) {
          slab = ahead.length > 0 ? this.#slabs.tryTake() : await this.#slabs.take(options);
          if (slab === undefined && !(await take())) return false;
        }
        const decoded = runTask(DECODE_CHUNKS, { ...task, slab });
        decoded.catch(() => undefined); // handled where it is awaited
        ahead.push({ slab, length: task.length, decoded });
        await yieldToEvents();
      }
      while (ahead.length > 0) if (!(await take())) return false;
      return hasher.isOf(digest);
    } finally {
      await Promise.allSettled(ahead.map(({ decoded }) => decoded));
      for (const { slab } of ahead) this.#slabs.give(slab);
    }
  }

  /** Finds chunks; `undefined` where one is absent, of another length, or longer than a slab. */
  #taskFor(
    batch: readonly ChunkMeta[],
  ): (Omit<lane.DecodeTask, "slab"> & Pick<Batch, "length">) | undefined {
    const locations: ChunkLocation[] = [];
    let length = 0;
    const found = this.#index.findChunks(batch.map(({ digest }) => digest));
    for (const [i, { size }] of batch.entries()) {
      const location = found[i];
      if (location?.size !== size) return undefined;
      locations.push(location);
      length += size;
    }
    if (length > this.#slabBytes) return undefined;
    const paths = new Map(locations.map(({ pack }) => [pack, packPath(this.#folder, pack)]));
    return { locations, paths, length };
  }
}
