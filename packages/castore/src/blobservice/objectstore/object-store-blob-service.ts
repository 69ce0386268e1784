import pLimit from "p-limit";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { ByteBudget } from "../../bytes/byte-budget.ts";
import { copyBytes } from "../../bytes/byte-string.ts";
import { DEFAULT_AVERAGE_CHUNK_SIZE } from "../../chunking/chunker.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_CHUNK_BYTES } from "../../model/limits.ts";
import { DamageMarks } from "../../objectstore/damage-marks.ts";
import type { ObjectStore } from "../../objectstore/object-store.ts";
import type {
  BlobReader,
  BlobService,
  BlobStat,
  BlobWriter,
  PutListOptions,
  ReadOptions,
} from "../blob-service.ts";
import { ChunkList, type ChunkMeta } from "../chunk-list.ts";
import { ChunkedBlobReader, type FetchChunk, readChunked } from "../chunked-reader.ts";
import { ChunkedBlobWriter, type ChunkSink } from "../chunked-writer.ts";
import { framesByCompressing } from "../frames.ts";
import { readWhole, statOneByOne } from "../one-by-one.ts";
import { putBlob } from "../put-blob.ts";
import { putListByReading } from "../put-list.ts";
import { ChunkObjects } from "./chunk-objects.ts";
import { ListedBlobs } from "./listed-blobs.ts";

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

/** How many bytes of chunks are looked up, compressed and sent at the same time. */
const BYTES_IN_FLIGHT = 8 * 1024 * 1024;

/** How many chunks one writer has under way, and how many blobs all batches together. */
const UPLOADS = 16;
const BLOBS = 48;

/** Of how many blobs that are absent it is kept in mind. */
const KNOWN_ABSENT = 4096;

const EMPTY = blake3Digest(new Uint8Array(0));
const NONE = ChunkList.of([]);

/**
 * Keeps blobs in an object store, in the layout of tvix: `chunks/b3/<4 hex>/<hex>` is a chunk, one frame of
 * zstd, and `blobs/b3/<4 hex>/<hex>` a `StatBlobResponse` with the chunks of a blob, or none for a blob that is
 * one chunk, or empty. See docs/formats.md.
 *
 * A chunk that is there is neither compressed nor sent. What was found damaged is marked, and counts as absent from
 * then on, also for others: it is replaced when it is put again. Reading looks at it again.
 */
export class ObjectStoreBlobService implements BlobService {
  readonly #store: ObjectStore;
  readonly #chunks: ChunkObjects;
  readonly #lists: ListedBlobs;
  readonly #averageChunkSize: number;
  readonly #budget = new ByteBudget(BYTES_IN_FLIGHT);
  readonly #limit = pLimit(BLOBS);
  /**
   * Blobs that were absent when they were looked up, by digest. Most are put next, and need not be looked up again: if
   * somebody else has put one meanwhile, it is replaced by the same.
   */
  readonly #absent = new Set<string>();

  /** @throws CastoreError `invalid_argument` for an average chunk size that is not offered */
  constructor(options: ObjectStoreBlobOptions) {
    const { store, averageChunkSize, zstdLevel = 1 } = options;
    const { onCorrupt = (message) => process.emitWarning(message) } = options;
    this.#store = store;
    this.#averageChunkSize = averageChunkSize ?? DEFAULT_AVERAGE_CHUNK_SIZE;
    const objects = { store, marks: new DamageMarks(store), onCorrupt };
    this.#chunks = new ChunkObjects(objects, zstdLevel);
    this.#lists = new ListedBlobs(objects, this.#chunks);
    void this.openWriter()[Symbol.asyncDispose](); // refuses a wrong chunk size here and now
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    if (await this.#hasBlob(digest, options)) return true;
    if (await this.#chunks.has(digest, options)) return true;
    if (this.#absent.size === KNOWN_ABSENT) this.#absent.clear();
    this.#absent.add(digest.hex);
    return false;
  }

  statMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (BlobStat | undefined)[]> {
    return statOneByOne(this, digests, options);
  }

  async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    options?.signal?.throwIfAborted();
    const list = await this.#lists.get(digest, options);
    if (list === undefined || list.chunks.length === 0) {
      const only = await this.#onlyChunk(digest, list !== undefined, options);
      return only && new ChunkedBlobReader(digest, only, this.#fetch);
    }
    try {
      await this.#lists.prove(digest, list, options);
    } catch (error) {
      if (error instanceof CastoreError && error.code === "data_loss") return undefined;
      throw error;
    }
    return new ChunkedBlobReader(digest, list.chunks, this.#lists.fetchOf(digest));
  }

  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const none = readChunked(NONE, this.#fetch, options); // refuses a wrong range
    if (digest.equals(EMPTY)) return (await this.has(digest, options)) ? none : undefined;
    const isKnown = this.#chunks.isLost(digest);
    // Most blobs are one chunk, which takes one request this way.
    const found = await this.#chunks.get(digest, MAX_CHUNK_BYTES, options);
    if (found instanceof Uint8Array) {
      return readChunked(
        ChunkList.of([{ digest, size: found.length }]),
        async () => found,
        options,
      );
    }
    const list = await this.#lists.get(digest, options);
    if (list !== undefined && list.chunks.length > 0) {
      return await this.#lists.read(digest, list, options);
    }
    const isAbsent = found === "missing" && list === undefined;
    if (isAbsent || isKnown) return undefined;
    throw await this.#chunks.lose(digest, found, options);
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
    const unique = new Map<string, Promise<void>>();
    let failed = false;
    const put = async (digest: B3Digest, data: Uint8Array) => {
      if (failed) return;
      try {
        await this.#putWhole(digest, data, options);
      } catch (error) {
        failed = true;
        throw error;
      }
    };
    const digests = blobs.map((data) => {
      const digest = blake3Digest(data);
      if (unique.has(digest.hex)) return digest;
      unique.set(digest.hex, this.#limit(put, digest, data));
      return digest;
    });
    await Promise.allSettled(unique.values()); // until then the bytes are in use
    await Promise.all(unique.values());
    return digests;
  }

  putList(digest: B3Digest, chunks: ChunkList, options?: PutListOptions): Promise<void> {
    return putListByReading(this, digest, chunks, options);
  }

  frames(chunks: ChunkList, options?: AbortOptions): AsyncIterable<Uint8Array> {
    return framesByCompressing(this, chunks, options);
  }

  openWriter(options?: AbortOptions): BlobWriter {
    const averageChunkSize = this.#averageChunkSize;
    return new ChunkedBlobWriter(this.#sink(options), { ...options, averageChunkSize });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store[Symbol.asyncDispose]();
  }

  /** Takes the chunks of one blob. */
  #sink(options?: AbortOptions): ChunkSink {
    const limit = pLimit(UPLOADS);
    const stop = new AbortController();
    const signals = [stop.signal, ...(options?.signal ? [options.signal] : [])];
    const signal = AbortSignal.any(signals);
    const uploads = new Set<Promise<void>>();
    const taken = new Set<string>();
    let failure: { readonly error: unknown } | undefined;
    return {
      putChunk: async (digest, data) => {
        if (failure !== undefined) throw failure.error;
        if (data.length === 0 || taken.has(digest.hex)) return;
        taken.add(digest.hex);
        const { length } = data;
        await this.#budget.take(length, { signal });
        const copy = copyBytes(data); // it is only lent
        const upload = limit(() => this.#chunks.putIfAbsent(digest, copy, { signal }))
          .catch((error) => {
            failure ??= { error };
          })
          .finally(() => {
            this.#budget.release(length);
            uploads.delete(upload);
          });
        uploads.add(upload);
      },
      commit: async (digest, chunks) => {
        await Promise.all(uploads);
        if (failure !== undefined) throw failure.error;
        await this.#putBlob(digest, chunks, { signal });
      },
      discard: async () => {
        stop.abort(new CastoreError("aborted", "The blob is not wanted any more"));
        await Promise.all(uploads);
      },
    };
  }

  /** Stores a blob that is in memory. One that is there has all its chunks. */
  async #putWhole(digest: B3Digest, data: Uint8Array, options: AbortOptions): Promise<void> {
    if (data.length > this.#averageChunkSize / 2) {
      await putBlob(this, data, options);
    } else if (await this.#isWanted(digest, options)) {
      if (data.length > 0) await this.#chunks.put(digest, data, options);
      await this.#lists.put(digest, NONE, options);
    }
  }

  /** Stores a blob whose chunks are stored. */
  async #putBlob(digest: B3Digest, chunks: ChunkList, options: AbortOptions): Promise<void> {
    const isWanted = await this.#isWanted(digest, options);
    for (const chunk of chunks) {
      if (!this.#chunks.isLost(chunk.digest)) continue;
      if (!(await this.#chunks.isMarked(chunk.digest, options))) continue;
      const text = `Cannot store blob ${digest}: chunk ${chunk.digest} was found damaged meanwhile`;
      throw new CastoreError("aborted", text);
    }
    if (!isWanted) return;
    await this.#lists.put(digest, chunks.length > 1 ? chunks : NONE, options);
    if (chunks.length > 1) await this.#chunks.forget(digest, options);
  }

  /** Whether a blob that is put has to be stored. */
  async #isWanted(digest: B3Digest, options: AbortOptions): Promise<boolean> {
    return this.#absent.delete(digest.hex) || !(await this.#hasBlob(digest, options));
  }

  /** The list of a blob that is not cut, of which only its chunk tells how long it is; `undefined` if it is absent. */
  async #onlyChunk(
    digest: B3Digest,
    isListed: boolean,
    options?: AbortOptions,
  ): Promise<ChunkList | undefined> {
    if (digest.equals(EMPTY)) return isListed && !this.#chunks.isLost(digest) ? NONE : undefined;
    const found = await this.#chunks.get(digest, MAX_CHUNK_BYTES, options);
    return found instanceof Uint8Array ? ChunkList.of([{ digest, size: found.length }]) : undefined;
  }

  /** Reads the chunk that a blob is. */
  readonly #fetch: FetchChunk = async ({ digest, size }, options) => {
    const found = await this.#chunks.get(digest, size, options);
    if (found instanceof Uint8Array) return found;
    throw await this.#chunks.lose(digest, found, options);
  };

  async #hasBlob(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    options?.signal?.throwIfAborted();
    if (await this.#chunks.isMarked(digest, options)) return false;
    return await this.#lists.has(digest, options);
  }

  /** A blob of one length; `undefined` if it is absent, damaged or of another. */
  async #readOfSize(blob: ChunkMeta, options?: AbortOptions): Promise<Uint8Array | undefined> {
    const { digest, size } = blob;
    const found = await this.#chunks.get(digest, Math.min(size, MAX_CHUNK_BYTES), options);
    if (found instanceof Uint8Array) return found.length === size ? found : undefined;
    if (found === "longer") return undefined;
    if (found === "damaged") await this.#chunks.lose(digest, found, options);
    // Without the chunk, what is left is a blob of several, or none.
    const read: BlobService["read"] = async (digest, options) => {
      const list = await this.#lists.get(digest, options);
      if (list === undefined) return undefined;
      if (list.chunks.length > 0) return await this.#lists.read(digest, list, options);
      if (digest.equals(EMPTY)) return readChunked(NONE, this.#fetch, options);
      throw await this.#chunks.lose(digest, found, options);
    };
    return await readWhole({ read }, blob, options);
  }
}
