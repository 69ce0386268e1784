import { setImmediate as onNextTurn } from "node:timers";
import type { B3Digest } from "../../model/digest.ts";
import { runTask, type Task, taskOf } from "../../worker/pool.ts";
import { SlabPool } from "../../worker/slab-pool.ts";
import type { compressRecords } from "./compress-records.ts";
import { CODEC, HEADER_LENGTH, writeHeader } from "./format.ts";
import type { GroupCommit } from "./group-commit.ts";

const COMPRESS_RECORDS: Task<typeof compressRecords> = taskOf(
  import.meta.url,
  "compress-records",
  "compressRecords",
);

/** How many bytes of records go to a thread together, unless one chunk is longer. */
const BATCH_BYTES = 512 * 1024;

/** How many buffers for batches are kept. */
const SPARE_SLABS = 40;

/** How many batches are compressed before small ones wait to grow. */
const EAGER_BATCHES = 2;

/** A chunk on its way into a pack. */
export interface ChunkJob {
  /** It is compressed, and waits for the next commit. */
  readonly queued: () => void;
  /** Called once: without an argument when it is durable, with the error when it is not. */
  readonly settle: (failure?: { error: unknown }) => void;
}

/** Chunks that were gathered for one trip to a thread. */
interface Batch {
  readonly bytes: Buffer<SharedArrayBuffer>;
  length: number;
  readonly jobs: ChunkJob[];
}

/**
 * Makes records of chunks, has the threads of the pool compress them, and hands them on. Small chunks travel together: those of
 * one turn of the event loop, or, when the threads have enough to do, as many as fit.
 */
export class ChunkEncoder {
  readonly #commits: GroupCommit;
  readonly #level: number;
  readonly #slabs: SlabPool;
  #batch: Batch | undefined;
  #running = 0;
  #scheduled = false;

  /**
   * @param commits gets the records
   * @param options.level level of zstd
   * @param options.maxSize length in bytes of the longest chunk
   */
  constructor(commits: GroupCommit, options: { level: number; maxSize: number }) {
    this.#commits = commits;
    this.#level = options.level;
    const batchBytes = Math.max(BATCH_BYTES, HEADER_LENGTH + options.maxSize);
    this.#slabs = new SlabPool(batchBytes, SPARE_SLABS);
  }

  /** Takes a chunk. Its bytes are copied. */
  add(digest: B3Digest, data: Uint8Array, job: ChunkJob): void {
    const needed = HEADER_LENGTH + data.length;
    if (this.#batch && this.#batch.length + needed > this.#batch.bytes.length) this.#send();
    this.#batch ??= this.#newBatch();
    const { bytes, length: at, jobs } = this.#batch;
    const size = data.length;
    writeHeader(bytes, at, { kind: "chunk", codec: CODEC.raw, storedSize: size, size, digest });
    bytes.set(data, at + HEADER_LENGTH);
    jobs.push(job);
    this.#batch.length += needed;
    this.#schedule();
  }

  #newBatch(): Batch {
    return { bytes: Buffer.from(this.#slabs.take()), length: 0, jobs: [] };
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    onNextTurn(() => {
      this.#scheduled = false;
      if (this.#running < EAGER_BATCHES) this.#send();
    });
  }

  #send(): void {
    const batch = this.#batch;
    if (batch === undefined) return;
    this.#batch = undefined;
    this.#running += 1;
    void this.#compress(batch).finally(() => {
      this.#running -= 1;
      if (this.#running < EAGER_BATCHES) this.#send();
      if (this.#running === 0 && this.#batch === undefined) this.#commits.flush();
    });
  }

  async #compress({ bytes, length: before, jobs }: Batch): Promise<void> {
    const settle: ChunkJob["settle"] = (failure) => {
      this.#slabs.give(bytes.buffer);
      for (const job of jobs) job.settle(failure);
    };
    try {
      const task = { bytes, length: before, level: this.#level };
      const length = await runTask(COMPRESS_RECORDS, task);
      this.#commits.addChunks({ records: { bytes, length }, settle });
    } catch (error) {
      settle({ error });
    }
    for (const job of jobs) job.queued();
  }
}
