import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { Piscina } from "piscina";
import { concatBytes, copyBytes } from "../../bytes/byte-string.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { errorOf } from "../../worker/failure.ts";
import { openPool } from "../../worker/pool.ts";
import type * as thread from "./commit-thread.ts";
import type { Records } from "./compress-records.ts";
import { blobRecord, HEADER_LENGTH, writeBlobHeader } from "./format.ts";
import type { CommitGroup, Lost } from "./pack-writer.ts";

/** Chunks that wait to be stored. */
export interface ChunksJob {
  readonly records: Records;
  /** Called once: without an argument when they are durable, with the error when they are not. */
  readonly settle: (failure?: { error: unknown }) => void;
}

/** A blob that waits to become readable. Its chunks are stored, or wait before it. */
export interface BlobJob {
  readonly digest: B3Digest;
  /** Its chunks, packed, as `storedList` gives them. */
  readonly list: Uint8Array;
  /** Throws if the blob is not wanted any more, or a chunk of it could not be stored. */
  readonly check: () => void;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** A chunk or list that waits to be forgotten. */
interface LostJob {
  readonly lost: Lost;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Chunks wait for more to be committed with them while less than so many bytes do, */
const ENOUGH_BYTES = 8 * 1024 * 1024;

/** and for so long at most. */
const PATIENCE_MS = 20;

/** How many bytes of a list are copied at a time: longer ones go to the thread in shared memory. */
const STEP_BYTES = 4 * 1024 * 1024;

/**
 * Commits chunks and blobs in groups, in a thread of their own: whatever waits when one commit begins goes
 * into it. While chunks keep coming, a commit waits until there is enough of them. The thread starts with
 * the first of them.
 */
export class GroupCommit implements AsyncDisposable {
  readonly #options: thread.CommitThreadOptions;
  #pool: Promise<Piscina> | undefined;
  #chunks: ChunksJob[] = [];
  #blobs: BlobJob[] = [];
  #lost: LostJob[] = [];
  /** Length of the chunks that wait, and what ends their waiting. */
  #bytes = 0;
  #timer: NodeJS.Timeout | undefined;
  #due = false;
  #running: Promise<void> | undefined;

  constructor(options: thread.CommitThreadOptions) {
    this.#options = options;
  }

  addChunks(job: ChunksJob): void {
    this.#chunks.push(job);
    this.#bytes += job.records.length;
    if (this.#bytes >= ENOUGH_BYTES) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), PATIENCE_MS);
  }

  /** Commits all that was added, without waiting for more. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#chunks.length + this.#blobs.length + this.#lost.length === 0) return;
    this.#due = true;
    this.#running ??= this.#run();
  }

  addBlobs(jobs: readonly BlobJob[]): void {
    this.#blobs.push(...jobs);
    if (this.#timer === undefined) this.flush(); // else they go with the chunks
  }

  /** Forgets a chunk or list that is lost, and resolves once that is durable. */
  forget(lost: Lost): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#lost.push({ lost, resolve, reject });
      this.flush();
    });
  }

  /** Commits all that was added, and ends the thread. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.flush();
    while (this.#running !== undefined) await this.#running;
    const pool = await this.#pool;
    await pool?.run(undefined, { name: "close" satisfies keyof typeof thread });
    await pool?.destroy();
  }

  async #run(): Promise<void> {
    await Promise.resolve(); // whoever is in the middle of adding several gets them into one commit
    while (this.#due) {
      this.#due = false;
      const [chunks, blobs, lost] = [this.#chunks, this.#blobs, this.#lost];
      [this.#chunks, this.#blobs, this.#lost, this.#bytes] = [[], [], [], 0];
      await this.#commit(chunks, blobs.filter(isWanted), lost);
    }
    this.#running = undefined;
  }

  async #commit(
    chunks: readonly ChunksJob[],
    blobs: readonly BlobJob[],
    lost: readonly LostJob[],
  ): Promise<void> {
    try {
      const group: CommitGroup = {
        chunks: chunks.map(({ records }) => records),
        blobs: await blobRecords(blobs),
        lost: lost.map(({ lost }) => lost),
      };
      const { failure, incomplete } = await this.#send(group);
      if (failure !== undefined) throw errorOf(failure);
      for (const { blob, chunk } of incomplete) {
        // It was found damaged, and so forgotten, after the writer had seen that it was there.
        const { digest, reject } = blobs[blob]!;
        const lostChunk = B3Digest.fromBytes(chunk);
        reject(
          new CastoreError(
            "aborted",
            `Cannot put blob ${digest}: chunk ${lostChunk} was lost meanwhile, put the blob again`,
          ),
        );
      }
    } catch (error) {
      for (const { settle } of chunks) settle({ error });
      for (const { reject } of [...blobs, ...lost]) reject(error);
      return;
    }
    for (const { settle } of chunks) settle();
    for (const { resolve } of [...blobs, ...lost]) resolve();
  }

  async #send(group: CommitGroup): Promise<thread.CommitOutcome> {
    this.#pool ??= openPool(import.meta.url, "commit-thread", {
      minThreads: 1,
      maxThreads: 1,
      workerData: this.#options,
    });
    const pool = await this.#pool;
    return await pool.run(group, { name: "commit" satisfies keyof typeof thread });
  }
}

/** Tells whether a blob is still wanted; rejects it if not. */
function isWanted({ check, reject }: BlobJob): boolean {
  try {
    check();
    return true;
  } catch (error) {
    reject(error);
    return false;
  }
}

/**
 * The records of blobs, in order: those of short lists together, which are copied to the thread, and those of long ones
 * each in shared memory, written in steps.
 */
async function blobRecords(blobs: readonly BlobJob[]): Promise<readonly Records[]> {
  const all: Records[] = [];
  let short: Uint8Array[] = [];
  const endShort = () => {
    if (short.length === 0) return;
    // In memory of its own: a part of a larger buffer would travel to the thread with all of that.
    const bytes = copyBytes(concatBytes(short));
    all.push({ bytes, length: bytes.length });
    short = [];
  };
  for (const { digest, list } of blobs) {
    if (list.length <= STEP_BYTES) {
      short.push(blobRecord(digest, list));
      continue;
    }
    endShort();
    const length = HEADER_LENGTH + list.length;
    const bytes = Buffer.from(new SharedArrayBuffer(length));
    writeBlobHeader(bytes, digest, list);
    for (let at = 0; at < list.length; at += STEP_BYTES) {
      bytes.set(list.subarray(at, at + STEP_BYTES), HEADER_LENGTH + at);
      await yieldToEvents();
    }
    all.push({ bytes, length });
  }
  endShort();
  return all;
}
