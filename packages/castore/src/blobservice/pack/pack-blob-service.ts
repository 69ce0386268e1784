import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { mapSome } from "../../bytes/map-some.ts";
import { inTurns } from "../../bytes/turns.ts";
import {
  assertAverageChunkSize,
  DEFAULT_AVERAGE_CHUNK_SIZE,
  isUncut,
} from "../../chunking/chunker.ts";
import { databaseSize, folderSize } from "../../disk/file-sizes.ts";
import type { Database } from "../../disk/sqlite.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import type { Measured, StoreStatistics } from "../../model/statistics.ts";
import { type Task, taskOf } from "../../worker/lane.ts";
import { runTask } from "../../worker/lanes.ts";
import type { BlobPlaces } from "../blob-places.ts";
import type {
  BlobReader,
  BlobService,
  BlobStat,
  BlobWriter,
  FilledBuffer,
  FrameBatch,
  PutListOptions,
  ReadOptions,
  StoredBlob,
} from "../blob-service.ts";
import type { ChunkList, ChunkMeta } from "../chunk-list.ts";
import { ChunkedBlobWriter, type ChunkSink } from "../chunked-writer.ts";
import type { FileStore } from "../file-store.ts";
import { readWhole } from "../one-by-one.ts";
import { putBlob } from "../put-blob.ts";
import { expectPlausibleList, hashListed, putListByReading } from "../put-list.ts";
import { copyUnread } from "../read-many-into.ts";
import { ChunkIndex, type ChunkLocation, indexPath } from "./chunk-index.ts";
import { storedList } from "./format.ts";
import { GroupCommit } from "./group-commit.ts";
import { ListProver } from "./list-prover.ts";
import { PackFileStore } from "./pack-file-store.ts";
import { packFolder } from "./pack-files.ts";
import { PackFrameReader } from "./pack-frame-reader.ts";
import { PackFrameStore } from "./pack-frame-store.ts";
import { IngestCall, PackIngest, recordsBytesFor } from "./pack-ingest.ts";
import { PackReader, type WantedChunk } from "./pack-reader.ts";
import { readPlaced } from "./read-placed.ts";
import { catchUp, rebuildIndex } from "./rebuild-index.ts";

const READ_PLACED: Task<typeof readPlaced> = taskOf(import.meta.url, "read-placed", "readPlaced");

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

/** How many bytes of chunks one thread reads at a time, and how many chunks. */
const READ_BYTES = 512 * 1024;
const READ_CHUNKS = 2048;

/** Contents of up to this many bytes are read by the calling thread: a trip to another thread takes about as long. */
const INLINE_BYTES = 64 * 1024;

/** After how many look-ups other events get their turn. */
const LOOKUPS_PER_TURN = 500;

/**
 * Keeps blobs in append-only pack files with a SQLite index, on the local disk: chunks by FastCDC,
 * equal ones once, each a zstd frame of its own. The layout of a pack is in `pack/format.ts`, that of
 * the index in `pack/chunk-index.ts`. Several processes may use the same folder.
 *
 * Compression, reading and writing are done by threads. Chunks of a blob whose writer did not finish are
 * kept, but not readable: the next writer of the same bytes need not store them again.
 */
export class PackBlobService implements BlobService, Measured {
  readonly keepsFrames = true;
  readonly #options: PackOptions;
  readonly #index: ChunkIndex;
  readonly #commits: GroupCommit;
  readonly #reader: PackReader;
  readonly #ingest: PackIngest;
  readonly #prover: ListProver;
  readonly #frames: PackFrameStore;
  readonly #frameReader: PackFrameReader;
  #lookups = 0;
  #lookupHits = 0;
  /** Stores files of the local file system. */
  readonly files: FileStore;
  readonly packFolder: string;

  private constructor(options: PackOptions, index: ChunkIndex) {
    const { path, maxPackSize = 1024 ** 3, zstdLevel: level = 1 } = options;
    const { averageChunkSize = DEFAULT_AVERAGE_CHUNK_SIZE, onCorrupt = warn } = options;
    this.#options = options;
    this.packFolder = path;
    this.#index = index;
    const maxRecords = recordsBytesFor(averageChunkSize);
    this.#commits = new GroupCommit({ folder: path, maxPackSize, maxRecords });
    this.#reader = new PackReader({ folder: path, index, commits: this.#commits, onCorrupt });
    this.#frameReader = new PackFrameReader(path, index, this.#reader);
    this.#ingest = new PackIngest(this.#commits, index, { folder: path, level, averageChunkSize });
    this.#prover = new ListProver(path, index, this.#ingest);
    this.#frames = new PackFrameStore(this, this.#ingest, this.#commits);
    this.files = new PackFileStore(this.#ingest, this.#commits, (digest) =>
      this.#isReadable(digest),
    );
  }

  /**
   * Opens a folder of packs, or creates it. If its index is gone, empty or without a schema, all packs are read to make it
   * anew. If a power failure took the last changes of the index, they are read from the packs.
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
    const fill = (db: Database) => rebuildIndex(db, path, onCorrupt, { signal });
    const complete = (db: Database) => catchUp(db, path, { signal });
    return new PackBlobService(options, await ChunkIndex.open(path, { fill, complete, signal }));
  }

  /** Returns what came in and what of that was new, by chunks, and how much the folder holds. */
  async statistics(): Promise<StoreStatistics> {
    const { path } = this.#options;
    const database = await databaseSize(indexPath(path));
    const packs = await folderSize(packFolder(path));
    const sizeBytes = (database.sizeBytes ?? 0) + (packs.sizeBytes ?? 0);
    const lookups = { lookups: this.#lookups, lookupHits: this.#lookupHits };
    return { ...packs, sizeBytes, ...lookups, ...this.#ingest.statistics() };
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
    return await this.#lookUp(digests, stat, options);
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
    const found = await this.#lookUp(digests, isReadable, options);
    this.#lookups += found.length;
    for (const isFound of found) if (isFound) this.#lookupHits += 1;
    return found;
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
    let locations: (ChunkLocation | undefined)[] = [];
    for (const [i, { digest, size }] of blobs.entries()) {
      const inTurn = i % LOOKUPS_PER_TURN;
      if (inTurn === 0) {
        if (i > 0) await yieldToEvents();
        const next = blobs.slice(i, i + LOOKUPS_PER_TURN);
        locations = this.#index.findChunks(next.map(({ digest }) => digest));
      }
      const location = locations[inTurn];
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

  async readManyInto(
    target: Uint8Array<ArrayBuffer>,
    blobs: BlobPlaces,
    options?: AbortOptions,
  ): Promise<FilledBuffer> {
    options?.signal?.throwIfAborted();
    const task = { store: this.#ingest.store, target, blobs: blobs.packed() };
    const where = { here: readPlaced, isNext: blobs.size <= INLINE_BYTES, moved: [target.buffer] };
    const { bytes, absent, damaged } = await runTask(READ_PLACED, task, where);
    options?.signal?.throwIfAborted();
    if (absent.length === 0) return { bytes, unread: damaged };
    const missing = await copyUnread(this, bytes, blobs, absent, options);
    return { bytes, unread: [...damaged, ...missing] };
  }

  async putMany(
    blobs: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly B3Digest[]> {
    options?.signal?.throwIfAborted();
    const digests: B3Digest[] = [];
    const cut: Promise<void>[] = [];
    const call = new IngestCall(() => options?.signal?.throwIfAborted());
    try {
      for (const [i, data] of blobs.entries()) {
        const onDigest = (digest: B3Digest) => {
          digests[i] = digest;
        };
        if (isUncut(data.length, this.#ingest.store.averageChunkSize)) {
          await this.#ingest.addBlob(data, call, onDigest, options);
          continue;
        }
        const stored = putBlob(this, data, options).then(onDigest);
        stored.catch(() => undefined); // awaited below
        cut.push(stored);
      }
    } finally {
      await call.idle();
    }
    call.check();
    await Promise.all(cut);
    return digests;
  }

  async putList(digest: B3Digest, chunks: ChunkList, options?: PutListOptions): Promise<void> {
    options?.signal?.throwIfAborted();
    expectPlausibleList(digest, chunks);
    if (chunks.length === 0 || !(await this.#areChunks(chunks, options))) {
      await putListByReading(this, digest, chunks, options); // tells which is absent, and cuts anew what is no chunk
      return;
    }
    const isProven =
      options?.proven ||
      (await this.#frames.proves(digest, chunks, options?.upload)) ||
      (await this.#prover.proves(digest, chunks, options));
    if (!isProven) await hashListed(this, digest, chunks, options); // throws the reason
    const check = () => options?.signal?.throwIfAborted();
    await this.#commitBlob(digest, chunks, check);
  }

  async putFrames(batch: FrameBatch, options?: AbortOptions): Promise<void> {
    await this.#frames.put(batch, options);
  }

  async readManyStored(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (StoredBlob | undefined)[]> {
    options?.signal?.throwIfAborted();
    const found = await this.#frameReader.storedMany(blobs);
    const contents = await mapSome(
      found,
      (stored, i) => (stored === undefined ? blobs[i] : undefined), // absent, damaged, or cut into several chunks
      (others) => this.readMany(others, options),
    );
    options?.signal?.throwIfAborted();
    return found.map((stored, i) => {
      const data = contents[i];
      return stored ?? (data && { contents: data });
    });
  }

  frames(chunks: ChunkList, options?: AbortOptions): AsyncIterable<Uint8Array> {
    return this.#frameReader.stored(chunks, options);
  }

  async frameSizes(chunks: ChunkList, options?: AbortOptions): Promise<Uint32Array> {
    return await this.#frameReader.sizes(chunks, options);
  }

  verifiedFrames(chunks: ChunkList, options?: AbortOptions): AsyncIterable<readonly Uint8Array[]> {
    return this.#frameReader.verified(chunks, options);
  }

  openWriter(options?: AbortOptions): BlobWriter {
    const { averageChunkSize } = this.#options;
    return new ChunkedBlobWriter(this.#sink(options), { ...options, averageChunkSize });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#frames[Symbol.dispose]();
    await this.#ingest[Symbol.asyncDispose]();
    await this.#commits[Symbol.asyncDispose]();
    this.#frameReader[Symbol.dispose]();
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

  /** Looks digests up in the index, several in a fraction of the time that each takes by itself. */
  #lookUp<T>(
    digests: readonly B3Digest[],
    lookUp: (digest: B3Digest) => T,
    options?: AbortOptions,
  ): Promise<T[]> {
    const around = digests.length > 1 ? () => this.#index.snapshot() : undefined;
    return inTurns(digests, LOOKUPS_PER_TURN, lookUp, { ...options, around });
  }

  /** Takes the chunks of one blob. */
  #sink(options?: AbortOptions): ChunkSink {
    const call = new IngestCall(() => options?.signal?.throwIfAborted());
    let isNew = false;
    return {
      putChunk: async (digest, data) => {
        call.check();
        if (this.#index.stateOf(digest) !== "absent") {
          this.#ingest.countStored(data.length);
          return;
        }
        isNew = true;
        await this.#ingest.addChunk(digest, data, call, options);
      },
      commit: async (digest, chunks) => {
        if (!isNew && this.#isReadable(digest)) return; // and so durable
        await call.idle();
        try {
          await this.#commitBlob(digest, chunks, call.check);
        } catch (error) {
          call.check(); // that a chunk could not be stored says more than that it is absent
          throw error;
        }
      },
      discard: async () => undefined, // what is on its way stays, for the next writer
    };
  }

  async #commitBlob(digest: B3Digest, chunks: ChunkList, check: () => void): Promise<void> {
    const records = { digest, list: storedList(digest, chunks) };
    const { stored } = await this.#commits.addBlobs({ records, count: 1, check });
    await stored;
  }
}

function warn(message: string): void {
  process.emitWarning(message);
}
