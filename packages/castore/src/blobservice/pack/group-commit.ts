import { setImmediate as yieldToEvents } from "node:timers/promises";
import { joinApart } from "../../bytes/byte-string.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { type Lane, type Task, taskOf } from "../../worker/lane.ts";
import { giveLane, takeLane } from "../../worker/lanes.ts";
import { SlabPool } from "../../worker/slab-pool.ts";
import type * as thread from "./commit-thread.ts";
import { blobRecord, HEADER_LENGTH, writeBlobHeader } from "./format.ts";
import {
  type CommitGroup,
  type IncompleteBlob,
  type Lost,
  PackWriter,
  type Records,
  unmark,
} from "./pack-writer.ts";

/** Options of {@link GroupCommit}. */
export interface GroupCommitOptions {
  readonly folder: string;
  /** Length in bytes at which a pack is full. */
  readonly maxPackSize: number;
  /** How many bytes of records of chunks are added at a time, at most. */
  readonly maxRecords: number;
}

/** Options of {@link GroupCommit.addChunks}. */
export interface AddChunksOptions {
  /** How long they may wait for more to be committed with them, in milliseconds. Default: 20. */
  readonly patienceMs?: number;
  /** Throws if those that are blobs as well are not wanted any more: then they are but chunks. Default: all are wanted. */
  readonly check?: (() => void) | undefined;
}

/** Records of blobs that become readable together. Their chunks are stored, or were added before. */
export interface BlobsJob {
  /** Their records, one after the other, or a single blob of a list that may be long. */
  readonly records: Uint8Array | { readonly digest: B3Digest; readonly list: Uint8Array };
  /** How many there are. */
  readonly count: number;
  /** Throws if they are not wanted any more. Default: they are. */
  readonly check?: (() => void) | undefined;
}

interface Settle {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Records of chunks that were added together. */
interface AddedChunks {
  /** Where they stand among all, in bytes. */
  readonly from: number;
  readonly to: number;
  /** Throws if the blobs among them are not wanted any more. Default: they are. */
  readonly check: (() => void) | undefined;
}

/** What was added since the last commit. */
interface Group {
  /** Records of chunks, copied. */
  slab: SharedArrayBuffer | undefined;
  length: number;
  /** How many records there are, of chunks and of blobs. */
  records: number;
  readonly chunks: (AddedChunks & Settle)[];
  readonly blobs: (BlobsJob & Settle)[];
  readonly lost: (Settle & { readonly lost: Lost })[];
}

/** Chunks wait for more to be committed with them while less than so many bytes do, */
const ENOUGH_BYTES = 2 * 1024 * 1024;

/** and fewer than so many records, */
const ENOUGH_RECORDS = 2048;

/** and for so long at most, unless the caller says otherwise. */
const PATIENCE_MS = 20;

/** Most records of chunks and blobs of one commit, which takes half a kilobyte of the heap for each. */
const MAX_RECORDS = 4096;

/** Length of a buffer for records of chunks in bytes, and their number: one fills while another is committed. */
const SLAB_BYTES = 3 * 1024 * 1024;
const SLABS = 2;

/**
 * Groups of no more than this, in bytes, are committed in this thread: to wake another takes longer, where the disk is fast.
 * Where a commit took more than so many milliseconds, so many groups after it go to the other thread all the same.
 */
const SMALL_GROUP_BYTES = 64 * 1024;
const SLOW_COMMIT_MS = 10;
const GROUPS_AFTER_SLOW = 32;

/** How many bytes of a list are copied at a time: longer ones go to the thread in shared memory. */
const STEP_BYTES = 4 * 1024 * 1024;

const COMMIT: Task<typeof thread.commit> = taskOf(import.meta.url, "commit-thread", "commit");
const CLOSE: Task<typeof thread.close> = taskOf(import.meta.url, "commit-thread", "close");

let lastStore = 0;

/**
 * Commits chunks and blobs in groups, in a thread of their own: whatever waits when one commit begins goes
 * into it. While chunks keep coming, a commit waits until there is enough of them. Small groups are committed in the
 * calling thread while that is fast.
 */
export class GroupCommit implements AsyncDisposable {
  readonly #options: GroupCommitOptions;
  readonly #store: number = ++lastStore;
  #lane: Lane | undefined;
  /** Commits in this thread. */
  #writer: PackWriter | undefined;
  readonly #slabs: SlabPool;
  readonly #slabBytes: number;
  #group: Group = newGroup();
  /** Groups that are to be committed before that one, as there is no more room in them. */
  readonly #full: Group[] = [];
  #lastAdd: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  /** When the timer ends, by the clock of `performance`. */
  #flushAt = Number.POSITIVE_INFINITY;
  #due = false;
  /** How many of the next groups go to the thread, even if they are small. */
  #elsewhere = 0;
  #running: Promise<void> | undefined;

  constructor(options: GroupCommitOptions) {
    this.#options = options;
    this.#slabBytes = Math.max(SLAB_BYTES, options.maxRecords);
    this.#slabs = new SlabPool(this.#slabBytes, SLABS);
  }

  /**
   * Adds records of chunks, and copies them: resolves when that is done, which may have to wait for a commit.
   *
   * @param count how many records there are
   * @returns a promise of their being durable, which rejects if they cannot be stored
   */
  addChunks(
    records: Uint8Array,
    count: number,
    { patienceMs = PATIENCE_MS, check }: AddChunksOptions = {},
  ): Promise<{ readonly stored: Promise<void> }> {
    return this.#inTurn(async () => {
      if (records.length > SMALL_GROUP_BYTES) this.#openLane().start(); // while more chunks come
      this.#makeRoom(records.length, count);
      let { slab } = this.#group;
      if (slab === undefined) {
        slab = await this.#slabs.take();
        this.#group.slab = slab; // whatever was added meanwhile has no chunks
      }
      const group = this.#group;
      const from = group.length;
      new Uint8Array(slab, from, records.length).set(records);
      group.length += records.length;
      group.records += count;
      const to = group.length;
      const stored = settled((settle) => group.chunks.push({ from, to, check, ...settle }));
      if (group.length >= ENOUGH_BYTES || group.records >= ENOUGH_RECORDS) this.flush();
      else this.#flushWithin(patienceMs);
      return { stored };
    });
  }

  /** Adds blobs. The bytes are the commit's from then on. Returns as {@link addChunks} does. */
  addBlobs(job: BlobsJob): Promise<{ readonly stored: Promise<void> }> {
    return this.#inTurn(async () => {
      this.#makeRoom(0, job.count);
      this.#group.records += job.count;
      const stored = settled((settle) => this.#group.blobs.push({ ...job, ...settle }));
      if (this.#timer === undefined) this.flush(); // else they go with the chunks
      return { stored };
    });
  }

  /** Commits all that was added, without waiting for more. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#flushAt = Number.POSITIVE_INFINITY;
    const { chunks, blobs, lost } = this.#group;
    if (chunks.length + blobs.length + lost.length === 0) return;
    this.#due = true;
    this.#start();
  }

  /** Forgets a chunk or list that is lost, and resolves once that is durable. */
  async forget(lost: Lost): Promise<void> {
    const forgotten = settled((settle) => this.#group.lost.push({ lost, ...settle }));
    this.flush();
    await forgotten;
  }

  /** Commits all that was added, and ends the thread. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lastAdd;
    this.flush();
    while (this.#running !== undefined) await this.#running;
    this.#writer?.[Symbol.dispose]();
    this.#writer = undefined;
    if (this.#lane === undefined) return;
    const lane = this.#lane;
    this.#lane = undefined;
    try {
      await lane.run(CLOSE, this.#store);
    } finally {
      await giveLane(lane);
    }
  }

  /** Begins another group if the records do not fit into this one. */
  #makeRoom(bytes: number, count: number): void {
    const { length, records } = this.#group;
    if (length + bytes <= this.#slabBytes && records + count <= MAX_RECORDS) return;
    this.#full.push(this.#group);
    this.#group = newGroup();
    this.#start();
  }

  /** Adds things in the order of the calls. */
  #inTurn<T>(add: () => Promise<T>): Promise<T> {
    const added = this.#lastAdd.then(add);
    this.#lastAdd = added.catch(() => undefined);
    return added;
  }

  #flushWithin(ms: number): void {
    const at = performance.now() + ms;
    if (this.#flushAt <= at) return;
    clearTimeout(this.#timer);
    this.#flushAt = at;
    this.#timer = setTimeout(() => this.flush(), ms);
  }

  #start(): void {
    this.#running ??= this.#run();
  }

  async #run(): Promise<void> {
    await Promise.resolve(); // whoever is in the middle of adding several gets them into one commit
    while (this.#due || this.#full.length > 0) {
      let group = this.#full.shift();
      if (group === undefined) {
        this.#due = false;
        group = this.#group;
        this.#group = newGroup();
      }
      await this.#commit(group);
    }
    this.#running = undefined;
  }

  async #commit({ slab, length, chunks, lost, ...group }: Group): Promise<void> {
    const blobs = group.blobs.filter(isWanted);
    for (const added of chunks) {
      if (!isWanted(added)) unmark(Buffer.from(slab!, added.from, added.to - added.from));
    }
    try {
      const incomplete = await this.#write({
        chunks: slab ? [{ bytes: new Uint8Array(slab, 0, length), length }] : [],
        blobs: await blobRecords(blobs),
        lost: lost.map(({ lost }) => lost),
      });
      rejectIncomplete(blobs, incomplete);
      for (const { resolve } of [...chunks, ...blobs, ...lost]) resolve();
    } catch (error) {
      for (const { reject } of [...chunks, ...blobs, ...lost]) reject(error);
    } finally {
      if (slab) this.#slabs.give(slab);
    }
  }

  #openLane(): Lane {
    this.#lane ??= takeLane();
    return this.#lane;
  }

  async #write(group: CommitGroup): Promise<readonly IncompleteBlob[]> {
    const { folder, maxPackSize } = this.#options;
    const bytes = [...group.chunks, ...group.blobs].reduce((sum, { length }) => sum + length, 0);
    if (bytes > SMALL_GROUP_BYTES || this.#elsewhere > 0) {
      this.#elsewhere = Math.max(this.#elsewhere - 1, 0);
      return await this.#openLane().run(COMMIT, { store: this.#store, folder, maxPackSize, group });
    }
    const startMs = performance.now();
    this.#writer ??= await PackWriter.open(folder, maxPackSize);
    try {
      return await this.#writer.commit(group);
    } finally {
      if (performance.now() - startMs > SLOW_COMMIT_MS) this.#elsewhere = GROUPS_AFTER_SLOW;
    }
  }
}

function newGroup(): Group {
  return { slab: undefined, length: 0, records: 0, chunks: [], blobs: [], lost: [] };
}

/** Makes a promise that is settled by what `add` receives. A rejection counts as handled. */
function settled(add: (settle: Settle) => void): Promise<void> {
  const promise = new Promise<void>((resolve, reject) => add({ resolve, reject }));
  promise.catch(() => undefined);
  return promise;
}

/** Tells whether blobs are still wanted; rejects them if not. */
function isWanted({ check, reject }: Pick<BlobsJob & Settle, "check" | "reject">): boolean {
  try {
    check?.();
    return true;
  } catch (error) {
    reject(error);
    return false;
  }
}

/** Rejects blobs of which a chunk was found damaged, and so forgotten, after it was seen that it is stored. */
function rejectIncomplete(
  jobs: readonly (BlobsJob & Settle)[],
  incomplete: readonly IncompleteBlob[],
): void {
  let [next, end] = [0, 0];
  for (const { count, reject } of jobs) {
    end += count;
    for (; next < incomplete.length && incomplete[next]!.blob < end; next++) {
      const { digest, chunk } = incomplete[next]!;
      const [blob, lost] = [digest, chunk].map((bytes) => B3Digest.fromBytes(bytes));
      const reason = `chunk ${lost} was lost meanwhile, put the blob again`;
      reject(new CastoreError("aborted", `Cannot put blob ${blob}: ${reason}`));
    }
  }
}

/**
 * The records of blobs, in order: those of short lists together, which are copied to the thread, and those of long ones
 * each in shared memory, written in steps.
 */
async function blobRecords(jobs: readonly BlobsJob[]): Promise<readonly Records[]> {
  const all: Records[] = [];
  let short: Uint8Array[] = [];
  const endShort = () => {
    if (short.length === 0) return;
    const bytes = joinApart(short);
    all.push({ bytes, length: bytes.length });
    short = [];
  };
  for (const { records } of jobs) {
    if (records instanceof Uint8Array) {
      short.push(records);
    } else if (records.list.length <= STEP_BYTES) {
      short.push(blobRecord(records.digest, records.list));
    } else {
      endShort();
      all.push(await longRecord(records.digest, records.list));
    }
  }
  endShort();
  return all;
}

async function longRecord(digest: B3Digest, list: Uint8Array): Promise<Records> {
  const length = HEADER_LENGTH + list.length;
  const bytes = Buffer.from(new SharedArrayBuffer(length));
  writeBlobHeader(bytes, 0, digest, list.length);
  for (let at = 0; at < list.length; at += STEP_BYTES) {
    bytes.set(list.subarray(at, at + STEP_BYTES), HEADER_LENGTH + at);
    await yieldToEvents();
  }
  return { bytes, length };
}
