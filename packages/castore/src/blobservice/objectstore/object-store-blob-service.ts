import { setImmediate as yieldToEvents } from "node:timers/promises";
import { LRUCache } from "lru-cache";
import pLimit from "p-limit";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { ByteBudget } from "../../bytes/byte-budget.ts";
import { lruCache } from "../../bytes/lru-cache.ts";
import { mapInParallel } from "../../bytes/parallel.ts";
import { DEFAULT_AVERAGE_CHUNK_SIZE, isUncut } from "../../chunking/chunker.ts";
import { compressToFrame } from "../../compression/zstd-frame.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError, hasCode } from "../../model/errors.ts";
import { MAX_CHUNK_BYTES } from "../../model/limits.ts";
import { DamagedObjects } from "../../objectstore/damaged-objects.ts";
import type { ObjectStore } from "../../objectstore/object-store.ts";
import type {
  BlobReader,
  BlobService,
  BlobStat,
  BlobWriter,
  FrameBatch,
  PutListOptions,
  ReadOptions,
} from "../blob-service.ts";
import { ChunkList, type ChunkMeta } from "../chunk-list.ts";
import { ChunkedBlobReader, type FetchChunk, readChunked } from "../chunked-reader.ts";
import { ChunkedBlobWriter } from "../chunked-writer.ts";
import { expectWholeFrames } from "../decode-frames.ts";
import { putLists, unreadableChunk } from "../frames.ts";
import { readWhole, statByOpening } from "../one-by-one.ts";
import { putBlob } from "../put-blob.ts";
import { expectPlausibleList, hashListed } from "../put-list.ts";
import { BlobObjects } from "./blob-objects.ts";
import { ChunkObjects } from "./chunk-objects.ts";
import { ListedBlobs } from "./listed-blobs.ts";
import { ObjectSink } from "./object-sink.ts";

/** Options of {@link ObjectStoreBlobService}. */
export interface ObjectStoreBlobOptions {
  /** Where the objects are. Disposed of with the service. */
  store: ObjectStore;
  /** Average size of new chunks in bytes, a power of two from 16 KiB to 4 MiB. Default: 256 KiB. */
  averageChunkSize?: number | undefined;
  /** Compression level of zstd, 1 to 22. Default: 1. */
  zstdLevel?: number | undefined;
  /** Is told of damaged objects that were met. Default: a process warning. */
  onCorrupt?: (message: string) => void;
}

/** How many bytes of chunks writers look up, compress and send at the same time. */
const BYTES_IN_FLIGHT = 8 * 1024 * 1024;

/** How many blobs all batches together have under way. */
const BLOBS = 48;

/** How many bytes of chunks are kept for readers that read parts of them, one after the other. */
const RECENT_BYTES = 16 * 1024 * 1024;

/** How many chunks of a list are remembered, to look at each of them once. */
const KNOWN_TAKEN = 65_536;

/** How many chunks of a list are looked at before other events have their turn. */
const CHUNKS_PER_TURN = 1024;

/** How many bytes of frames are fetched at a time, unless one is longer, and how many frames. */
const FRAMES_BYTES = 4 * 1024 * 1024;
const FRAMES = 32;

const EMPTY = blake3Digest(new Uint8Array(0));
const NONE = ChunkList.of([]);

/**
 * Keeps blobs in an object store, in the layout of tvix: `chunks/b3/<4 hex>/<hex>` is a chunk, one frame of
 * zstd, and `blobs/b3/<4 hex>/<hex>` a `StatBlobResponse` with the chunks of a blob, or none for a blob that is
 * one chunk, or empty. See docs/formats.md.
 *
 * A chunk that is there is neither compressed nor sent. What is found damaged is deleted, as {@link DamagedObjects} does
 * it, and with it the list of the blob whose reading met it: the blob is absent from then on, and stored whole when it
 * is put again.
 */
export class ObjectStoreBlobService implements BlobService {
  readonly #store: ObjectStore;
  readonly #chunks: ChunkObjects;
  readonly #lists: ListedBlobs;
  readonly #objects: BlobObjects;
  readonly #averageChunkSize: number;
  readonly #budget = new ByteBudget(BYTES_IN_FLIGHT);
  readonly #limit = pLimit(BLOBS);
  /** Chunks that readers have read a part of, by digest. */
  readonly #recent = new LRUCache<string, Uint8Array>({
    maxSize: RECENT_BYTES,
    sizeCalculation: ({ length }) => length,
  });

  /** @throws CastoreError `invalid_argument` for an average chunk size that is not offered */
  constructor(options: ObjectStoreBlobOptions) {
    const { store, averageChunkSize, zstdLevel = 1 } = options;
    const { onCorrupt = (message) => process.emitWarning(message) } = options;
    this.#store = store;
    this.#averageChunkSize = averageChunkSize ?? DEFAULT_AVERAGE_CHUNK_SIZE;
    const damaged = new DamagedObjects(store, onCorrupt);
    this.#chunks = new ChunkObjects(store, damaged, zstdLevel);
    this.#lists = new ListedBlobs(store, damaged, this.#chunks);
    this.#objects = new BlobObjects(this.#chunks, this.#lists);
    void this.openWriter()[Symbol.asyncDispose](); // refuses a wrong chunk size here and now
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    return await this.#objects.has(digest, options);
  }

  statMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (BlobStat | undefined)[]> {
    return this.#limit.map(digests, (digest) => statByOpening(this, digest, options));
  }

  async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    options?.signal?.throwIfAborted();
    const list = await this.#lists.get(digest, options);
    if (list !== undefined && list.chunks.length > 0) {
      try {
        await this.#lists.prove(digest, list, options);
      } catch (error) {
        if (hasCode(error, "data_loss")) return undefined;
        throw error;
      }
      const fetch = this.#keepingRecent(this.#lists.fetchOf(digest, list));
      return new ChunkedBlobReader(digest, list.chunks, fetch);
    }
    const fetch = this.#keepingRecent(this.#fetch);
    if (digest.equals(EMPTY)) return list && new ChunkedBlobReader(digest, NONE, fetch);
    // Only the chunk tells how long it is.
    const found = await this.#chunks.get(digest, MAX_CHUNK_BYTES, options);
    if (!(found instanceof Uint8Array)) return undefined;
    this.#recent.set(digest.key, found);
    return new ChunkedBlobReader(digest, ChunkList.of([{ digest, size: found.length }]), fetch);
  }

  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const none = readChunked(NONE, this.#fetch, options); // refuses a wrong range
    if (digest.equals(EMPTY)) return (await this.has(digest, options)) ? none : undefined;
    // Most blobs are one chunk, which takes one request this way.
    const found = await this.#chunks.get(digest, MAX_CHUNK_BYTES, options);
    if (found instanceof Uint8Array) {
      const list = ChunkList.of([{ digest, size: found.length }]);
      return readChunked(list, async () => found, options);
    }
    const list = await this.#lists.get(digest, options);
    if (list !== undefined && list.chunks.length > 0) {
      return await this.#lists.read(digest, list, options);
    }
    if (found === "missing") return undefined;
    throw unreadableChunk(digest, `it is ${found} in ${this.#store.name}`);
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    return this.#limit.map(digests, (digest) => this.has(digest, options));
  }

  async readMany(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    options?.signal?.throwIfAborted();
    const read = (blob: ChunkMeta) => this.#readOfSize(blob, options);
    return await this.#limit.map(blobs, read);
  }

  async putMany(
    blobs: readonly Uint8Array[],
    options: AbortOptions = {},
  ): Promise<readonly B3Digest[]> {
    options.signal?.throwIfAborted();
    const hashed = blobs.map((data) => ({ data, digest: blake3Digest(data) }));
    await this.#putEach(hashed, ({ digest, data }) => this.#putBlob(digest, data, options));
    return hashed.map(({ digest }) => digest);
  }

  async putList(digest: B3Digest, chunks: ChunkList, options?: PutListOptions): Promise<void> {
    expectPlausibleList(digest, chunks);
    const { signal, proven } = options ?? {};
    signal?.throwIfAborted();
    if (!proven) await hashListed(this, digest, chunks, { signal });
    const taken = lruCache<string, true>(KNOWN_TAKEN);
    for (let start = 0; start < chunks.length; start += CHUNKS_PER_TURN) {
      if (start > 0) await yieldToEvents();
      const end = Math.min(start + CHUNKS_PER_TURN, chunks.length);
      const batch: ChunkMeta[] = [];
      for (let i = start; i < end; i++) {
        const chunk = chunks.at(i);
        if (taken.has(chunk.digest.key)) continue;
        taken.set(chunk.digest.key, true);
        batch.push(chunk);
      }
      const store = (chunk: ChunkMeta, options: AbortOptions) =>
        this.#makeChunk(digest, chunk, options);
      const refusals = await mapInParallel(batch, BLOBS, store, { signal });
      const first = refusals.find((refusal) => refusal !== undefined); // in the order of the list
      if (first !== undefined) throw first;
    }
    await this.#objects.commit(digest, chunks, { signal });
  }

  async putFrames(batch: FrameBatch, options?: AbortOptions): Promise<void> {
    const { chunks, frames, blobs } = batch;
    await expectWholeFrames(batch, options);
    const framed = frames.map((frame, i) => ({ frame, digest: chunks.digestAt(i) }));
    await this.#putEach(framed, ({ digest, frame }) =>
      this.#objects.putWhole(digest, () => this.#chunks.putFrame(digest, frame, options), options),
    );
    await putLists(this, blobs, options);
  }

  async *frames(chunks: ChunkList, options?: AbortOptions): AsyncGenerator<Uint8Array> {
    for (const batch of chunks.batches(FRAMES, FRAMES_BYTES)) {
      const get = (chunk: ChunkMeta, options: AbortOptions) => this.#frameOf(chunk, options);
      for (const frame of await mapInParallel(batch, FRAMES, get, options)) {
        yield frame;
        options?.signal?.throwIfAborted();
      }
    }
  }

  async storedSizes(
    chunks: ChunkList,
    options?: AbortOptions,
  ): Promise<readonly (number | undefined)[]> {
    const sizeOf = ({ digest }: ChunkMeta, options: AbortOptions) =>
      this.#chunks.frameSize(digest, options);
    return await mapInParallel(chunks, BLOBS, sizeOf, options);
  }

  openWriter(options?: AbortOptions): BlobWriter {
    const averageChunkSize = this.#averageChunkSize;
    const sink = new ObjectSink(this.#chunks, this.#objects, this.#budget, options);
    return new ChunkedBlobWriter(sink, { ...options, averageChunkSize });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store[Symbol.asyncDispose]();
  }

  /** Stores blobs, each of them once, some at the same time. When it settles, none of their bytes is in use any more. */
  async #putEach<T extends { readonly digest: B3Digest }>(
    blobs: readonly T[],
    put: (blob: T) => Promise<void>,
  ): Promise<void> {
    const unique = new Map<string, Promise<void>>();
    let failed = false;
    const putUnlessFailed = async (blob: T) => {
      if (failed) return;
      try {
        await put(blob);
      } catch (error) {
        failed = true;
        throw error;
      }
    };
    for (const blob of blobs) {
      const { key } = blob.digest;
      if (!unique.has(key)) unique.set(key, this.#limit(putUnlessFailed, blob));
    }
    await Promise.allSettled(unique.values());
    await Promise.all(unique.values());
  }

  /** Stores a blob that is in memory, cut where it is long. */
  async #putBlob(digest: B3Digest, data: Uint8Array, options: AbortOptions): Promise<void> {
    if (isUncut(data.length, this.#averageChunkSize)) {
      const putChunk = async () => {
        if (data.length > 0) await this.#chunks.put(digest, data, options);
      };
      await this.#objects.putWhole(digest, putChunk, options);
    } else {
      await putBlob(this, data, options);
    }
  }

  /**
   * Makes sure that a listed chunk is an object of its own, which a blob that is cut itself is not. Returns the error
   * for a chunk that is absent, or has another length.
   */
  async #makeChunk(
    blob: B3Digest,
    chunk: ChunkMeta,
    options: AbortOptions,
  ): Promise<CastoreError | undefined> {
    const size = await this.#chunks.sizeOf(chunk.digest, options);
    if (size === chunk.size) return undefined;
    const data = size === undefined ? await this.#readOfSize(chunk, options) : undefined;
    if (data === undefined) {
      const [found] = await this.statMany([chunk.digest], options);
      const action = `Cannot put blob ${blob}: chunk ${chunk.digest}`;
      if (found === undefined) return new CastoreError("not_found", `${action} is absent`);
      const text = `${action} is listed with ${chunk.size} bytes, found are ${found.size}`;
      return new CastoreError("data_loss", text);
    }
    await this.#chunks.put(chunk.digest, data, options);
    return undefined;
  }

  /** Reads the frame of a chunk as it is stored, or makes one where it states no length, as those of tvix. */
  async #frameOf(chunk: ChunkMeta, options: AbortOptions): Promise<Uint8Array> {
    const { digest, size } = chunk;
    const found = await this.#chunks.getFrame(digest, size, options);
    if (found?.size === size) return found.frame;
    const data = await this.#readOfSize(chunk, options);
    if (data !== undefined) return await compressToFrame(data);
    throw unreadableChunk(digest, `it is absent, damaged, or has not ${size} bytes`);
  }

  /** Reads the chunk that a blob is. */
  readonly #fetch: FetchChunk = async ({ digest, size }, options) => {
    const found = await this.#chunks.get(digest, size, options);
    if (found instanceof Uint8Array) return found;
    throw unreadableChunk(digest, `it is ${found} in ${this.#store.name}`);
  };

  /** Keeps chunks for a while: whoever reads a part of one mostly reads the next part next. */
  #keepingRecent(fetch: FetchChunk): FetchChunk {
    return async (chunk, options, offset) => {
      const known = this.#recent.get(chunk.digest.key);
      if (known !== undefined) return known;
      const data = await fetch(chunk, options, offset);
      this.#recent.set(chunk.digest.key, data);
      return data;
    };
  }

  /** Reads a blob of one length; `undefined` if it is absent, damaged or of another. */
  async #readOfSize(blob: ChunkMeta, options?: AbortOptions): Promise<Uint8Array | undefined> {
    const { digest, size } = blob;
    const found = await this.#chunks.get(digest, Math.min(size, MAX_CHUNK_BYTES), options);
    if (found instanceof Uint8Array) return found.length === size ? found : undefined;
    if (found === "longer") return undefined;
    // Without the chunk, what is left is a blob of several, or none.
    const list = await this.#lists.get(digest, options);
    if (list === undefined) return undefined;
    if (list.chunks.length === 0) return digest.equals(EMPTY) && size === 0 ? NOTHING : undefined;
    return await readWhole({ read: () => this.#lists.read(digest, list, options) }, blob);
  }
}

const NOTHING = new Uint8Array(0);
