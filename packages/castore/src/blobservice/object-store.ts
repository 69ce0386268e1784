import { promisify } from "node:util";
import { constants, zstdCompress, zstdDecompress } from "node:zlib";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { StatBlobResponse_ChunkMetaSchema, StatBlobResponseSchema } from "@tvix/proto/castore";
import pLimit from "p-limit";
import { ByteBudget } from "../byte-budget.ts";
import { collectBytes, copyBytes } from "../bytes.ts";
import { B3Digest } from "../digest.ts";
import { CastoreError } from "../errors.ts";
import { DEFAULT_AVERAGE_CHUNK_SIZE } from "../fastcdc/chunker.ts";
import { objectKey } from "../object-store/digest-key.ts";
import type { ObjectStore } from "../object-store/object-store.ts";
import type { AbortOptions } from "../options.ts";
import type { BlobService, BlobWriter, ChunkMeta, LentBlobs, ReadOptions } from "./blob-service.ts";
import { readChunked } from "./chunked-reader.ts";
import { ChunkedBlobWriter, type ChunkSink } from "./chunked-writer.ts";
import { hasOneByOne, readOneByOne } from "./one-by-one.ts";
import { putBlob } from "./put-blob.ts";

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
const BYTES_IN_FLIGHT = 16 * 1024 * 1024;

/** How many requests one writer has under way, and how many one batch. */
const UPLOADS = 16;
const REQUESTS = 48;

/** Chunks are never longer, whoever cut them: twice the largest average that is offered. */
const MAX_CHUNK_BYTES = 8 * 1024 * 1024;

const EMPTY = B3Digest.of(new Uint8Array(0));

const compress = promisify<Uint8Array, object, Buffer>(zstdCompress);
const decompress = promisify<Uint8Array, object, Buffer<ArrayBuffer>>(zstdDecompress);

/**
 * Keeps blobs in an object store, in the layout of tvix: `chunks/b3/<4 hex>/<hex>` is a chunk, one frame of
 * zstd, and `blobs/b3/<4 hex>/<hex>` a `StatBlobResponse` with the chunks of a blob, or none for a blob that is
 * one chunk, or empty. See docs/formats.md.
 *
 * A chunk that is there is neither compressed nor sent. One that was found damaged counts as absent from then on,
 * and is replaced when it is put again.
 */
export class ObjectStoreBlobService implements BlobService {
  readonly #store: ObjectStore;
  readonly #averageChunkSize: number;
  readonly #level: number;
  readonly #onCorrupt: (message: string) => void;
  readonly #budget = new ByteBudget(BYTES_IN_FLIGHT);
  /** Digests of what was found damaged. */
  readonly #damaged = new Set<string>();

  /** @throws CastoreError `invalid_argument` for an average chunk size that is not offered */
  constructor(options: ObjectStoreBlobOptions) {
    const { store, averageChunkSize, zstdLevel = 1, onCorrupt } = options;
    this.#store = store;
    this.#averageChunkSize = averageChunkSize ?? DEFAULT_AVERAGE_CHUNK_SIZE;
    this.#level = zstdLevel;
    this.#onCorrupt = onCorrupt ?? ((message) => process.emitWarning(message));
    void this.openWriter()[Symbol.asyncDispose](); // refuses a wrong chunk size here and now
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    return (await this.#hasBlob(digest, options)) || (await this.#hasChunk(digest, options));
  }

  async chunks(
    digest: B3Digest,
    options?: AbortOptions,
  ): Promise<readonly ChunkMeta[] | undefined> {
    options?.signal?.throwIfAborted();
    const chunks = await this.#chunkList(digest, options);
    if (chunks !== undefined) return chunks;
    return (await this.#hasChunk(digest, options)) ? [] : undefined;
  }

  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const none = readChunked([], () => Promise.reject(), options); // refuses a wrong range
    if (digest.equals(EMPTY)) return (await this.has(digest, options)) ? none : undefined;
    // Most blobs are one chunk, which takes one request this way.
    const found = this.#damaged.has(digest.hex)
      ? undefined
      : await this.#getChunk(digest, MAX_CHUNK_BYTES, options);
    if (found !== undefined) {
      return readChunked([{ digest, size: found.length }], async () => found, options);
    }
    const chunks = await this.#chunkList(digest, options);
    if (chunks === undefined) return undefined;
    if (chunks.length === 0) throw this.#lost(digest, `chunk ${digest} is not there`);
    const fetch = async (chunk: ChunkMeta, options?: AbortOptions) => {
      const data = await this.#getChunk(chunk.digest, chunk.size, options);
      if (data !== undefined) return data;
      throw this.#lost(chunk.digest, "it is not there");
    };
    return readChunked(chunks, fetch, options);
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    return hasOneByOne(this, digests, { ...options, concurrency: REQUESTS });
  }

  readMany(blobs: readonly ChunkMeta[], options?: AbortOptions): Promise<LentBlobs> {
    return readOneByOne(this, blobs, { ...options, concurrency: REQUESTS });
  }

  async putMany(
    blobs: readonly Uint8Array[],
    options: AbortOptions = {},
  ): Promise<readonly B3Digest[]> {
    options.signal?.throwIfAborted();
    const unique = new Map<string, Promise<void>>();
    const limit = pLimit(REQUESTS);
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
      const digest = B3Digest.of(data);
      if (unique.has(digest.hex)) return digest;
      unique.set(digest.hex, limit(put, digest, data));
      return digest;
    });
    await Promise.allSettled(unique.values()); // until then the bytes are in use
    await Promise.all(unique.values());
    return digests;
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
        const upload = limit(() => this.#putChunk(digest, copy, { signal }))
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
        await this.#putBlob(digest, chunks.length > 1 ? chunks : [], { signal });
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
    } else if (!(await this.#hasBlob(digest, options))) {
      if (data.length > 0) await this.#sendChunk(digest, data, options);
      await this.#sendBlob(digest, [], options);
    }
  }

  async #putChunk(digest: B3Digest, data: Uint8Array, options: AbortOptions): Promise<void> {
    if (!(await this.#hasChunk(digest, options))) await this.#sendChunk(digest, data, options);
  }

  async #sendChunk(digest: B3Digest, data: Uint8Array, options: AbortOptions): Promise<void> {
    const params = { [constants.ZSTD_c_compressionLevel]: this.#level };
    const frame = await compress(data, { params });
    await this.#store.put(chunkKey(digest), frame, options);
    this.#damaged.delete(digest.hex);
  }

  async #putBlob(
    digest: B3Digest,
    chunks: readonly ChunkMeta[],
    options: AbortOptions,
  ): Promise<void> {
    if (!(await this.#hasBlob(digest, options))) await this.#sendBlob(digest, chunks, options);
  }

  async #sendBlob(
    digest: B3Digest,
    chunks: readonly ChunkMeta[],
    options: AbortOptions,
  ): Promise<void> {
    const message = create(StatBlobResponseSchema, {
      chunks: chunks.map(({ digest, size }) =>
        create(StatBlobResponse_ChunkMetaSchema, { digest: digest.bytes, size: BigInt(size) }),
      ),
    });
    await this.#store.put(blobKey(digest), toBinary(StatBlobResponseSchema, message), options);
    this.#damaged.delete(digest.hex);
  }

  async #hasBlob(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    options?.signal?.throwIfAborted();
    if (this.#damaged.has(digest.hex)) return false;
    return (await this.#store.head(blobKey(digest), options)) !== undefined;
  }

  async #hasChunk(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    options?.signal?.throwIfAborted();
    if (this.#damaged.has(digest.hex)) return false;
    return (await this.#store.head(chunkKey(digest), options)) !== undefined;
  }

  /** The chunks of a blob, none if it is one chunk or empty; `undefined` if there is no such blob. */
  async #chunkList(
    digest: B3Digest,
    options?: AbortOptions,
  ): Promise<readonly ChunkMeta[] | undefined> {
    if (this.#damaged.has(digest.hex)) return undefined;
    const object = await this.#store.get(blobKey(digest), { signal: options?.signal });
    if (object === undefined) return undefined;
    const bytes = await collectBytes(object);
    try {
      return fromBinary(StatBlobResponseSchema, bytes).chunks.map(({ digest, size }) => ({
        digest: B3Digest.fromBytes(digest),
        size: chunkSize(size),
      }));
    } catch (error) {
      this.#lost(digest, `its list of chunks is damaged: ${(error as Error).message}`);
      return undefined;
    }
  }

  /**
   * A chunk, verified; `undefined` if it is not there.
   *
   * @param maxSize how long it can be: a frame that gives more is damaged
   * @throws CastoreError `data_loss` for a damaged one
   */
  async #getChunk(
    digest: B3Digest,
    maxSize: number,
    options?: AbortOptions,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const object = await this.#store.get(chunkKey(digest), { signal: options?.signal });
    if (object === undefined) return undefined;
    const frame = await collectBytes(object);
    const data = await decompress(frame, { maxOutputLength: Math.max(maxSize, 1) }).catch(
      () => undefined, // whatever is wrong with it, these are not the bytes that were put
    );
    if (data !== undefined && B3Digest.of(data).equals(digest)) return data;
    throw this.#lost(digest, `object "${chunkKey(digest)}" in ${this.#store.name} is damaged`);
  }

  /** Notes that something cannot be read any more, so that putting it again heals. */
  #lost(digest: B3Digest, reason: string): CastoreError {
    this.#damaged.add(digest.hex);
    const message = `Cannot read ${digest}: ${reason}`;
    this.#onCorrupt(message);
    return new CastoreError("data_loss", message);
  }
}

function blobKey(digest: B3Digest): string {
  return objectKey("blobs", digest);
}

function chunkKey(digest: B3Digest): string {
  return objectKey("chunks", digest);
}

function chunkSize(size: bigint): number {
  if (size <= BigInt(MAX_CHUNK_BYTES)) return Number(size);
  throw new CastoreError("data_loss", `it has a chunk of ${size} bytes`);
}
