import { setImmediate as onNextTurn } from "node:timers";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { B3Digest } from "../../model/digest.ts";
import type { StoreStatistics } from "../../model/statistics.ts";
import { type Task, taskOf } from "../../worker/lane.ts";
import { laneCount, runInAll, runTask } from "../../worker/lanes.ts";
import { SlabPool } from "../../worker/slab-pool.ts";
import type { ChunkIndex } from "./chunk-index.ts";
import type { AddChunksOptions, GroupCommit } from "./group-commit.ts";
import type * as lane from "./prepare.ts";
import { type PreparedBytes, prepareBytes } from "./prepare.ts";
import { type LaneStore, leaveIndex, type PreparedRecords, useIndex } from "./record-batch.ts";

const PREPARE_BYTES: Task<typeof lane.prepareBytes> = taskOf(
  import.meta.url,
  "prepare",
  "prepareBytes",
);
const CLOSE_STORE: Task<typeof lane.closeStore> = taskOf(import.meta.url, "prepare", "closeStore");

/** Least length of the contents of a batch, in bytes, and how many of the longest chunks have room in one. */
const CONTENTS_BYTES = 1024 * 1024;
const LONGEST_CHUNKS = 2;

/** Room in a slab for what records take besides contents, in bytes. */
const OVERHEAD_BYTES = 192 * 1024;

/** Most items of a batch: their records fit. */
const BATCH_ITEMS = 1024;

/** A batch of no more than this is prepared in this thread, in bytes: a trip to a lane takes as long. */
const INLINE_BYTES = 32 * 1024;

/** How many batches are prepared before small ones wait to grow. */
const EAGER_BATCHES = 2;

/** How many batches are under way for each lane, besides one for this thread and one that is being filled. */
const BATCHES_PER_LANE = 2;

/** A blob or chunk that travels to a lane with others. */
interface Item {
  readonly call: IngestCall;
  readonly length: number;
  /** Makes it a blob, and receives its digest; `undefined` for a chunk of a blob. */
  readonly onDigest: ((digest: B3Digest) => void) | undefined;
  /** Its digest, if that is known: it is not hashed again. */
  readonly digest?: B3Digest;
  /** Called once: when a blob is durable, when a chunk stands in the queue of the commits, or when either has failed. */
  readonly end: (failure?: { error: unknown }) => void;
}

interface Batch {
  readonly slab: SharedArrayBuffer;
  readonly items: Item[];
  length: number;
}

/** The contents of one call, or of one writer, on their way into packs. */
export class IngestCall {
  readonly #check: () => void;
  #underWay = 0;
  #idle: PromiseWithResolvers<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  /** @param check throws if the contents are not wanted any more: blobs are not made readable then */
  constructor(check: () => void) {
    this.#check = check;
  }

  /** Whether {@link check} would not throw. */
  get isWanted(): boolean {
    try {
      this.check();
      return true;
    } catch {
      return false;
    }
  }

  /** Throws if the contents are not wanted any more, or some of them could not be stored. */
  readonly check = (): void => {
    this.#check();
    if (this.#failure !== undefined) throw this.#failure.error;
  };

  /** Notes that work has begun. Returns what is called when it has ended. */
  begin(): (failure?: { error: unknown }) => void {
    this.#underWay += 1;
    return (failure) => {
      this.#failure ??= failure;
      this.#underWay -= 1;
      if (this.#underWay > 0) return;
      this.#idle?.resolve();
      this.#idle = undefined;
    };
  }

  /** Resolves when no work is under way. */
  async idle(): Promise<void> {
    if (this.#underWay === 0) return;
    this.#idle ??= Promise.withResolvers();
    await this.#idle.promise;
  }
}

let lastId = 0;

/**
 * Takes contents that are in memory into packs: has lanes prepare them, in batches, and hands their records on to be
 * committed. Small contents travel together: those of one turn of the event loop, or, when the lanes have enough to do, as
 * many as fit.
 */
export class PackIngest implements AsyncDisposable {
  readonly store: LaneStore;
  /** Length of the contents in a slab, in bytes. The records follow. */
  readonly contentsBytes: number;
  /** Length of a slab in bytes. */
  readonly slabBytes: number;
  readonly #commits: GroupCommit;
  readonly #slabs: SlabPool;
  #batch: Batch | undefined;
  #opening: Promise<void> | undefined;
  readonly #running = new Set<Promise<void>>();
  #isScheduled = false;
  #chunksOffered = 0;
  #bytesOffered = 0;
  #chunksAdded = 0;
  #bytesAdded = 0;

  constructor(commits: GroupCommit, index: ChunkIndex, options: Omit<LaneStore, "id">) {
    this.#commits = commits;
    this.store = { id: ++lastId, ...options };
    useIndex(this.store, index);
    this.contentsBytes = contentsBytesFor(options.averageChunkSize);
    this.slabBytes = this.contentsBytes + recordsBytesFor(options.averageChunkSize);
    this.#slabs = this.newSlabs(laneCount() * BATCHES_PER_LANE + 2);
  }

  /** Returns how many chunks were prepared, and how many of them were new. */
  statistics(): StoreStatistics {
    return {
      chunksOffered: this.#chunksOffered,
      bytesOffered: this.#bytesOffered,
      chunksAdded: this.#chunksAdded,
      bytesAdded: this.#bytesAdded,
    };
  }

  /** Counts a chunk that came in and is stored. */
  countStored(length: number): void {
    this.#chunksOffered += 1;
    this.#bytesOffered += length;
  }

  /** Returns buffers for contents and their records, see {@link SlabPool}. */
  newSlabs(maxSlabs: number, maxSpare?: number): SlabPool {
    return new SlabPool(this.slabBytes, maxSlabs, maxSpare);
  }

  /**
   * Takes a blob of one chunk, and copies it. Resolves when there is room for more.
   *
   * @param call waits until it is durable
   * @param onDigest receives its digest
   */
  async addBlob(
    data: Uint8Array,
    call: IngestCall,
    onDigest: (digest: B3Digest) => void,
    options?: AbortOptions,
  ): Promise<void> {
    await this.#add(data, { call, length: data.length, onDigest }, options);
  }

  /**
   * Takes a chunk of a blob, and copies it. Resolves when there is room for more.
   *
   * @param call waits until it stands in the queue of the commits
   */
  async addChunk(
    digest: B3Digest,
    data: Uint8Array,
    call: IngestCall,
    options?: AbortOptions,
  ): Promise<void> {
    await this.#add(data, { call, length: data.length, onDigest: undefined, digest }, options);
  }

  /**
   * Hands the records in a slab on. Resolves, once they were copied, with promises of their being durable.
   *
   * @param options.check throws if the blobs are not wanted any more. Default: they are
   * @param options.patienceMs how long they may wait for others. Default: as `GroupCommit`
   */
  async commit(
    slab: SharedArrayBuffer,
    prepared: PreparedRecords,
    options: AddChunksOptions = {},
  ): Promise<Promise<void>[]> {
    this.#count(prepared);
    const { chunkBytes, newChunks, blobBytes, blobs: count } = prepared;
    const stored: Promise<void>[] = [];
    let at = this.contentsBytes;
    if (chunkBytes > 0) {
      const chunks = new Uint8Array(slab, at, chunkBytes);
      const added = await this.#commits.addChunks(chunks, newChunks, options);
      stored.push(added.stored);
    }
    at += chunkBytes;
    if (count > 0) {
      const records = new Uint8Array(slab.slice(at, at + blobBytes));
      const added = await this.#commits.addBlobs({ records, count, check: options.check });
      stored.push(added.stored);
    }
    return stored;
  }

  /** Waits for all that was added, and closes what lanes have open of the store. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opening;
    this.#send();
    while (this.#running.size > 0) await Promise.all(this.#running);
    leaveIndex(this.store);
    await runInAll(CLOSE_STORE, this.store);
  }

  #count({ allChunks, allBytes, newChunks, newBytes }: PreparedRecords): void {
    this.#chunksOffered += allChunks;
    this.#bytesOffered += allBytes;
    this.#chunksAdded += newChunks;
    this.#bytesAdded += newBytes;
  }

  async #add(data: Uint8Array, item: Omit<Item, "end">, options?: AbortOptions): Promise<void> {
    for (;;) {
      options?.signal?.throwIfAborted();
      const batch = this.#batch;
      if (batch === undefined) {
        this.#opening ??= this.#open();
        await this.#opening;
        continue;
      }
      const isFull = batch.length + data.length > this.contentsBytes;
      if (isFull || batch.items.length === BATCH_ITEMS) {
        this.#send();
        continue;
      }
      new Uint8Array(batch.slab, batch.length, data.length).set(data);
      batch.length += data.length;
      batch.items.push({ ...item, end: item.call.begin() });
      this.#schedule();
      return;
    }
  }

  async #open(): Promise<void> {
    const slab = await this.#slabs.take();
    this.#opening = undefined;
    this.#batch = { slab, items: [], length: 0 };
    this.#schedule(); // it is given back, should nobody use it
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    onNextTurn(() => {
      this.#isScheduled = false;
      if (this.#running.size < EAGER_BATCHES) this.#send();
    });
  }

  #send(): void {
    const batch = this.#batch;
    if (batch === undefined) return;
    this.#batch = undefined;
    const running = this.#ingest(batch).finally(() => {
      this.#running.delete(running);
      if (this.#running.size < EAGER_BATCHES) this.#send();
      if (this.#running.size === 0 && this.#batch === undefined) this.#commits.flush();
    });
    this.#running.add(running);
  }

  /** Has a batch prepared and committed. Resolves when its records stand in the queue of the commits. */
  async #ingest({ slab, items, length }: Batch): Promise<void> {
    let prepared: PreparedBytes;
    let stored: Promise<unknown>;
    try {
      const task = {
        store: this.store,
        slab,
        recordsAt: this.contentsBytes,
        lengths: Uint32Array.from(items, (item) => item.length),
        digests: digestsOf(items),
        areBlobs: Uint8Array.from(items, ({ call, onDigest }) =>
          onDigest && call.isWanted ? 1 : 0,
        ),
      };
      const isSmall = length <= INLINE_BYTES && this.#running.size === 0;
      const here = length <= CONTENTS_BYTES ? { here: prepareBytes } : {}; // some milliseconds
      prepared = isSmall ? prepareBytes(task) : await runTask(PREPARE_BYTES, task, here);
      stored = Promise.all(await this.commit(slab, prepared));
    } catch (error) {
      for (const { end } of items) end({ error });
      return;
    } finally {
      this.#slabs.give(slab);
    }
    const blobs: Item["end"][] = [];
    for (const [i, { call, onDigest, end }] of items.entries()) {
      if (onDigest === undefined) {
        end();
        stored.catch((error: unknown) => call.begin()({ error }));
        continue;
      }
      const at = i * B3Digest.LENGTH;
      onDigest(B3Digest.fromBytes(prepared.digests.slice(at, at + B3Digest.LENGTH)));
      if (prepared.isLive[i] === 1) end();
      else blobs.push(end);
    }
    const settle = (failure?: { error: unknown }) => {
      for (const end of blobs) end(failure);
    };
    stored.then(
      () => settle(),
      (error: unknown) => settle({ error }),
    );
  }
}

/** Returns the digests of all items, one after the other, if they are known. */
function digestsOf(items: readonly Item[]): Uint8Array | undefined {
  const digests = new Uint8Array(items.length * B3Digest.LENGTH);
  for (const [i, { digest }] of items.entries()) {
    if (digest === undefined) return undefined;
    digests.set(digest.bytes, i * B3Digest.LENGTH);
  }
  return digests;
}

/** Returns the length of the contents in a slab, in bytes. */
function contentsBytesFor(averageChunkSize: number): number {
  return Math.max(CONTENTS_BYTES, averageChunkSize * 2 * LONGEST_CHUNKS);
}

/** Returns the room for records in a slab, in bytes: contents that cannot be compressed fit. */
export function recordsBytesFor(averageChunkSize: number): number {
  return contentsBytesFor(averageChunkSize) + OVERHEAD_BYTES;
}
