import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { ByteBudget } from "../../bytes/byte-budget.ts";
import { inTurns } from "../../bytes/turns.ts";
import { assertAverageChunkSize, DEFAULT_AVERAGE_CHUNK_SIZE } from "../../chunking/chunker.ts";
import type { Database } from "../../disk/database.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { startThreads } from "../../worker/pool.ts";
import type {
  BlobReader,
  BlobService,
  BlobStat,
  BlobWriter,
  PutListOptions,
  ReadOptions,
} from "../blob-service.ts";
import type { ChunkList, ChunkMeta } from "../chunk-list.ts";
import { ChunkedBlobWriter, type ChunkSink } from "../chunked-writer.ts";
import { readWhole } from "../one-by-one.ts";
import { putBlob } from "../put-blob.ts";
import { expectPlausibleList, hashListed, putListByReading } from "../put-list.ts";
import { ChunkEncoder } from "./chunk-encoder.ts";
import { ChunkIndex } from "./chunk-index.ts";
import { chunkEntry, storedList } from "./format.ts";
import { type BlobJob, GroupCommit } from "./group-commit.ts";
import { PackReader, type WantedChunk } from "./pack-reader.ts";
import { rebuildIndex } from "./rebuild-index.ts";

/** Options of {@link PackBlobService.open}. */
export interface PackOptions extends AbortOptions {
  /** The folder, absolute. Created if it does not exist. */
  path: string;
  /** Compression level of zstd, 1 to 22. Default: 1. */
  zstdLevel?: number;
  /** Average size of new chunks in bytes, a power of two from 16 KiB to 4 MiB. Default: 256 KiB. */
  averageChunkSize?: number;
  /** Length in bytes at which a pack is full and the next one is begun. Default: 1 GiB. */
  maxPackSize?: number;
  /** Called with a message when damage is found. Default: a process warning. */
  onCorrupt?: (message: string) => void;
}

/** How many bytes of chunks may be compressed, written and committed at the same time. */
const BYTES_IN_FLIGHT = 16 * 1024 * 1024;

/** How many bytes of chunks one thread reads at a time, and how many chunks. */
const READ_BYTES = 512 * 1024;
const READ_CHUNKS = 2048;

/** After how many look-ups other events get their turn. */
const LOOKUPS_PER_TURN = 500;

/** How many chunks a writer remembers before it drops those that are stored. */
const AWAITED_CHUNKS = 1024;

/** A chunk on its way into a pack. */
interface PendingChunk {
  /** Resolves when it stands in the queue of the next commit. */
  readonly queued: Promise<void>;
  isStored: boolean;
  failure?: { readonly error: unknown };
}

/**
 * Keeps blobs in append-only pack files with a SQLite index, on the local disk: chunks by FastCDC,
 * equal ones once, each a zstd frame of its own. The layout of a pack is in `pack/format.ts`, that of
 * the index in `pack/chunk-index.ts`. Several processes may use the same folder.
 *
 * Compression, reading and writing are done by threads. Chunks of a blob whose writer did not finish are
 * kept, but not readable: the next writer of the same bytes need not store them again.
 */
export class PackBlobService implements BlobService {
  readonly #options: PackOptions;
  readonly #index: ChunkIndex;
  readonly #commits: GroupCommit;
  readonly #reader: PackReader;
  readonly #encoder: ChunkEncoder;
  readonly #budget = new ByteBudget(BYTES_IN_FLIGHT);
  readonly #pending = new Map<string, PendingChunk>();
  /** Blobs up to this length are one chunk, whatever is in them. */
  readonly #uncutSize: number;

  private constructor(options: PackOptions, index: ChunkIndex) {
    const { path, maxPackSize = 1024 ** 3, zstdLevel = 1, averageChunkSize } = options;
    this.#options = options;
    this.#index = index;
    this.#commits = new GroupCommit({ folder: path, maxPackSize });
    const { onCorrupt = warn } = options;
    this.#reader = new PackReader({ folder: path, index, commits: this.#commits, onCorrupt });
    const average = averageChunkSize ?? DEFAULT_AVERAGE_CHUNK_SIZE;
    this.#encoder = new ChunkEncoder(this.#commits, { level: zstdLevel, maxSize: average * 2 });
    this.#uncutSize = average / 2;
  }

  /**
   * Opens a folder of packs, or creates it. If its index is gone, empty or without a schema, that is made
   * anew from the packs, all of which are read for it.
   *
   * @throws CastoreError `invalid_argument` for a chunk size that is not offered or an index of another
   *   kind, `data_loss` for a damaged index, `unavailable` while another process holds it,
   *   `resource_exhausted` if there is no room for one
   */
  static async open(options: PackOptions): Promise<PackBlobService> {
    const {
      path,
      averageChunkSize = DEFAULT_AVERAGE_CHUNK_SIZE,
      onCorrupt = warn,
      signal,
    } = options;
    assertAverageChunkSize(averageChunkSize); // before anything is created
    startThreads().catch(() => undefined); // told to whoever needs them
    const fill = (db: Database) => rebuildIndex(db, path, onCorrupt, { signal });
    return new PackBlobService(options, await ChunkIndex.open(path, { fill, signal }));
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    options?.signal?.throwIfAborted();
    return this.#isReadable(digest);
  }

  async statMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (BlobStat | undefined)[]> {
    const stat = (digest: B3Digest) => {
      const size = this.#index.findChunk(digest)?.size;
      if (size === undefined) return this.#index.statBlob(digest);
      return { size, chunks: size > 0 ? 1 : 0 };
    };
    return await inTurns(digests, LOOKUPS_PER_TURN, stat, options);
  }

  async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    options?.signal?.throwIfAborted();
    return await this.#reader.open(digest, options);
  }

  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    options?.signal?.throwIfAborted();
    return await this.#reader.read(digest, options);
  }

  async hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    const isReadable = (digest: B3Digest) => this.#isReadable(digest);
    return await inTurns(digests, LOOKUPS_PER_TURN, isReadable, options);
  }

  async readMany(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    options?.signal?.throwIfAborted();
    const parts: Promise<readonly (Uint8Array | CastoreError | undefined)[]>[] = [];
    let batch: WantedChunk[] = [];
    let bytes = 0;
    const add = (part: (typeof parts)[number]) => {
      part.catch(() => undefined); // awaited below, unless the index fails before
      parts.push(part);
    };
    const readBatch = () => {
      if (batch.length > 0) add(this.#reader.readChunks(batch));
      [batch, bytes] = [[], 0];
    };
    for (const [i, { digest, size }] of blobs.entries()) {
      if (i % LOOKUPS_PER_TURN === LOOKUPS_PER_TURN - 1) await yieldToEvents();
      const location = this.#index.findChunk(digest);
      if (location?.size === size) {
        batch.push({ digest, location });
        bytes += size;
        if (bytes >= READ_BYTES || batch.length === READ_CHUNKS) readBatch();
      } else {
        readBatch();
        const whole = location ? undefined : readWhole(this, { digest, size }, options);
        add(Promise.resolve(whole).then((contents) => [contents]));
      }
    }
    readBatch();
    const found = await Promise.all(parts);
    options?.signal?.throwIfAborted();
    return found.flat().map((data) => (data instanceof CastoreError ? undefined : data));
  }

  async putMany(
    blobs: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly B3Digest[]> {
    options?.signal?.throwIfAborted();
    const digests: (B3Digest | Promise<B3Digest>)[] = [];
    const uncut: { readonly digest: B3Digest; readonly size: number; chunk?: PendingChunk }[] = [];
    for (const [i, data] of blobs.entries()) {
      if (i % LOOKUPS_PER_TURN === LOOKUPS_PER_TURN - 1) await yieldToEvents();
      if (data.length > this.#uncutSize) {
        const stored = putBlob(this, data, options);
        stored.catch(() => undefined); // awaited below
        digests.push(stored);
        continue;
      }
      const digest = blake3Digest(data);
      digests.push(digest);
      const state = this.#index.stateOf(digest);
      if (state === "live") continue; // and so durable
      const chunk = state === "absent" ? await this.#storeAbsent(digest, data, options) : undefined;
      uncut.push({ digest, size: data.length, ...(chunk && { chunk }) });
    }
    await Promise.all(uncut.map(({ chunk }) => chunk?.queued));
    await this.#commitBlobs(
      uncut.map(({ digest, size, chunk }) => ({
        digest,
        list: chunkEntry(digest, size),
        check: () => throwIfUnwanted(chunk ? [chunk] : [], options),
      })),
    );
    return await Promise.all(digests);
  }

  async putList(digest: B3Digest, chunks: ChunkList, options?: PutListOptions): Promise<void> {
    options?.signal?.throwIfAborted();
    expectPlausibleList(digest, chunks);
    if (chunks.length === 0 || !(await this.#areChunks(chunks, options))) {
      await putListByReading(this, digest, chunks, options); // tells which is absent, and cuts anew what is no chunk
      return;
    }
    if (!options?.proven) await hashListed(this, digest, chunks, options);
    const check = () => throwIfUnwanted([], options);
    await this.#commitBlobs([{ digest, list: storedList(digest, chunks), check }]);
  }

  frames(chunks: ChunkList, options?: AbortOptions): AsyncIterable<Uint8Array> {
    return this.#reader.frames(chunks, options);
  }

  openWriter(options?: AbortOptions): BlobWriter {
    const { averageChunkSize } = this.#options;
    return new ChunkedBlobWriter(this.#sink(options), { ...options, averageChunkSize });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled([...this.#pending.values()].map(({ queued }) => queued));
    await this.#commits[Symbol.asyncDispose]();
    this.#index[Symbol.dispose]();
  }

  /** Whether all of a list are chunks of that length: one may be a blob of several. */
  async #areChunks(chunks: ChunkList, options?: AbortOptions): Promise<boolean> {
    let last: ChunkMeta | undefined;
    for (let i = 0; i < chunks.length; i++) {
      if (i % LOOKUPS_PER_TURN === LOOKUPS_PER_TURN - 1) await yieldToEvents();
      options?.signal?.throwIfAborted();
      const chunk = chunks.at(i);
      const { digest, size } = chunk;
      const isRepeated = last?.size === size && last.digest.equals(digest); // as sparse files do
      last = chunk;
      if (isRepeated) continue;
      if (this.#index.findChunk(digest)?.size !== size) return false;
    }
    return true;
  }

  #isReadable(digest: B3Digest): boolean {
    return this.#index.stateOf(digest) === "live" || this.#index.hasBlob(digest);
  }

  /** Takes the chunks of one blob. */
  #sink(options?: AbortOptions): ChunkSink {
    /** Chunks that are not known to be stored. */
    const awaited = new Set<PendingChunk>();
    let isNew = false;
    const forgetStored = () => {
      throwIfUnwanted(awaited, options);
      for (const chunk of awaited) if (chunk.isStored) awaited.delete(chunk);
    };
    return {
      putChunk: async (digest, data) => {
        const chunk = await this.#storeChunk(digest, data, options);
        if (chunk === undefined) return;
        isNew = true;
        awaited.add(chunk);
        if (awaited.size % AWAITED_CHUNKS === 0) forgetStored();
      },
      commit: async (digest, chunks) => {
        if (!isNew && this.#isReadable(digest)) return; // and so durable
        await Promise.all([...awaited].map(({ queued }) => queued));
        const check = () => throwIfUnwanted(awaited, options);
        await this.#commitBlobs([{ digest, list: storedList(digest, chunks), check }]);
      },
      discard: async () => awaited.clear(), // what is on its way stays, for the next writer
    };
  }

  /** Commits blobs together. */
  async #commitBlobs(blobs: readonly Omit<BlobJob, "resolve" | "reject">[]): Promise<void> {
    const jobs: BlobJob[] = [];
    const committed = blobs.map(
      (blob) =>
        new Promise<void>((resolve, reject) => {
          jobs.push({ ...blob, resolve, reject });
        }),
    );
    if (jobs.length > 0) this.#commits.addBlobs(jobs);
    await Promise.all(committed);
  }

  /** Stores a chunk. Returns the chunk while it is in flight, `undefined` if it is stored already. */
  async #storeChunk(
    digest: B3Digest,
    data: Uint8Array,
    options?: AbortOptions,
  ): Promise<PendingChunk | undefined> {
    if (this.#index.stateOf(digest) !== "absent") return undefined;
    return await this.#storeAbsent(digest, data, options);
  }

  /** Stores a chunk that is not in the index, and returns it while it is in flight. */
  async #storeAbsent(
    digest: B3Digest,
    data: Uint8Array,
    options?: AbortOptions,
  ): Promise<PendingChunk> {
    const { hex } = digest;
    const { length } = data;
    const found = this.#pending.get(hex);
    if (found !== undefined) return found;
    await this.#budget.take(length, options);
    // Stored meanwhile by somebody else, it is stored twice at worst: the commit takes only one.
    const meanwhile = this.#pending.get(hex);
    if (meanwhile !== undefined) {
      this.#budget.release(length);
      return meanwhile;
    }
    const { promise: queued, resolve } = Promise.withResolvers<void>();
    const chunk: PendingChunk = { queued, isStored: false };
    this.#pending.set(hex, chunk);
    this.#encoder.add(digest, data, {
      queued: resolve,
      settle: (failure) => {
        if (failure === undefined) chunk.isStored = true;
        else chunk.failure = failure;
        this.#pending.delete(hex);
        this.#budget.release(length);
      },
    });
    return chunk;
  }
}

function warn(message: string): void {
  process.emitWarning(message);
}

/** Throws if a blob is not wanted any more, or a chunk of it could not be stored. */
function throwIfUnwanted(chunks: Iterable<PendingChunk>, options?: AbortOptions): void {
  options?.signal?.throwIfAborted();
  for (const { failure } of chunks) if (failure !== undefined) throw failure.error;
}
