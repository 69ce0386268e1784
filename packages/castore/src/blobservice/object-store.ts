import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { StatBlobResponse_ChunkMetaSchema, StatBlobResponseSchema } from "@tvix/proto/castore";
import pLimit from "p-limit";
import { ByteBudget } from "../byte-budget.ts";
import { collectAtMost, copyBytes, freeBuffer } from "../bytes.ts";
import { B3Digest } from "../digest.ts";
import { CastoreError } from "../errors.ts";
import { DEFAULT_AVERAGE_CHUNK_SIZE } from "../fastcdc/chunker.ts";
import { objectKey } from "../object-store/digest-key.ts";
import type { ObjectStore } from "../object-store/object-store.ts";
import type { AbortOptions } from "../options.ts";
import type { BlobService, BlobWriter, ChunkMeta, LentBlobs, ReadOptions } from "./blob-service.ts";
import { readChunked } from "./chunked-reader.ts";
import { ChunkedBlobWriter, type ChunkSink } from "./chunked-writer.ts";
import { ChunkObjects, MAX_CHUNK_BYTES } from "./object-store/chunk-objects.ts";
import { ownBlobs, readWhole } from "./one-by-one.ts";
import { putBlob } from "./put-blob.ts";
import { verifyBlob } from "./verify-blob.ts";

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

/** The longest list of chunks: one and a half million of them, which is 400 GB in chunks of 256 KiB. */
const MAX_LIST_BYTES = 64 * 1024 * 1024;

const EMPTY = B3Digest.of(new Uint8Array(0));

/** The chunks of a blob, none if it is one chunk or empty, and the digest of the object that lists them. */
interface ChunkList {
  readonly chunks: readonly ChunkMeta[];
  readonly hex: string;
}

/** Why a blob cannot be read: a list, and which of the chunks in it, unless it is the list as a whole. */
interface Fault {
  readonly list: string;
  readonly chunk?: ChunkMeta;
}

/**
 * Keeps blobs in an object store, in the layout of tvix: `chunks/b3/<4 hex>/<hex>` is a chunk, one frame of
 * zstd, and `blobs/b3/<4 hex>/<hex>` a `StatBlobResponse` with the chunks of a blob, or none for a blob that is
 * one chunk, or empty. See docs/formats.md.
 *
 * A chunk that is there is neither compressed nor sent. What was found damaged counts as absent from then on, and
 * is replaced when it is put again. Whether somebody else has replaced it is looked at when it is asked for.
 */
export class ObjectStoreBlobService implements BlobService {
  readonly #store: ObjectStore;
  readonly #chunks: ChunkObjects;
  readonly #averageChunkSize: number;
  readonly #onCorrupt: (message: string) => void;
  readonly #budget = new ByteBudget(BYTES_IN_FLIGHT);
  readonly #limit = pLimit(BLOBS);
  /** What is wrong with blobs, by digest. */
  readonly #faults = new Map<string, Fault>();
  /**
   * Blobs that were absent when they were looked up, by digest. Most are put next, and need not be looked up again: if
   * somebody else has put one meanwhile, it is replaced by the same.
   */
  readonly #absent = new Set<string>();

  /** @throws CastoreError `invalid_argument` for an average chunk size that is not offered */
  constructor(options: ObjectStoreBlobOptions) {
    const { store, averageChunkSize, zstdLevel = 1, onCorrupt } = options;
    this.#store = store;
    this.#averageChunkSize = averageChunkSize ?? DEFAULT_AVERAGE_CHUNK_SIZE;
    this.#onCorrupt = onCorrupt ?? ((message) => process.emitWarning(message));
    this.#chunks = new ChunkObjects(store, { zstdLevel, onCorrupt: this.#onCorrupt });
    void this.openWriter()[Symbol.asyncDispose](); // refuses a wrong chunk size here and now
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    if (await this.#hasBlob(digest, options)) return true;
    if (await this.#chunks.has(digest, options)) return true;
    if (this.#absent.size === KNOWN_ABSENT) this.#absent.clear();
    this.#absent.add(digest.hex);
    return false;
  }

  async chunks(
    digest: B3Digest,
    options?: AbortOptions,
  ): Promise<readonly ChunkMeta[] | undefined> {
    options?.signal?.throwIfAborted();
    const list = await this.#chunkList(digest, options);
    const isRead = list !== undefined && (list.chunks.length > 0 || !this.#chunks.isLost(digest));
    if (isRead) return list.chunks;
    return (await this.#chunks.has(digest, options)) ? [] : undefined;
  }

  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const none = readChunked([], () => Promise.reject(), options); // refuses a wrong range
    if (digest.equals(EMPTY)) return (await this.has(digest, options)) ? none : undefined;
    const isKnown = this.#chunks.isLost(digest);
    // Most blobs are one chunk, which takes one request this way.
    const found = await this.#chunks.get(digest, MAX_CHUNK_BYTES, options);
    if (found instanceof Uint8Array) {
      return readChunked([{ digest, size: found.length }], async () => found, options);
    }
    const list = await this.#chunkList(digest, options);
    if (list !== undefined && list.chunks.length > 0) return this.#readList(digest, list, options);
    const isAbsent = found === "missing" && list === undefined;
    if (isAbsent || isKnown) return undefined;
    throw this.#chunks.lose(digest, found);
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    return this.#limit.map(digests, (digest) => this.has(digest, options));
  }

  async readMany(blobs: readonly ChunkMeta[], options?: AbortOptions): Promise<LentBlobs> {
    options?.signal?.throwIfAborted();
    const read = (blob: ChunkMeta) => this.#readOfSize(blob, options);
    return ownBlobs(await this.#limit.map(blobs, read));
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
      const digest = B3Digest.of(data);
      if (unique.has(digest.hex)) return digest;
      unique.set(digest.hex, this.#limit(put, digest, data));
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
        const upload = limit(() => this.#chunks.putIfAbsent(digest, copy, { signal }))
          .catch((error) => {
            failure ??= { error };
          })
          .finally(() => {
            freeBuffer(copy);
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
    } else if (await this.#isWanted(digest, options)) {
      if (data.length > 0) await this.#chunks.put(digest, data, options);
      await this.#sendBlob(digest, [], options);
    }
  }

  async #putBlob(
    digest: B3Digest,
    chunks: readonly ChunkMeta[],
    options: AbortOptions,
  ): Promise<void> {
    if (await this.#isWanted(digest, options)) await this.#sendBlob(digest, chunks, options);
  }

  /** Whether a blob that is put has to be stored. */
  async #isWanted(digest: B3Digest, options: AbortOptions): Promise<boolean> {
    return this.#absent.delete(digest.hex) || !(await this.#hasBlob(digest, options));
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
    const bytes = toBinary(StatBlobResponseSchema, message);
    if (bytes.length > MAX_LIST_BYTES) {
      throw new CastoreError(
        "resource_exhausted",
        `Cannot store blob ${digest}: expected a list of chunks of at most ${MAX_LIST_BYTES} bytes, ` +
          `found ${bytes.length}. Larger chunks make it shorter`,
      );
    }
    await this.#store.put(blobKey(digest), bytes, options);
    this.#faults.delete(digest.hex);
  }

  async #hasBlob(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    options?.signal?.throwIfAborted();
    if (this.#chunks.isLost(digest) && !(await this.#chunks.has(digest, options))) return false;
    if (this.#faults.has(digest.hex)) {
      return (await this.#chunkList(digest, options)) !== undefined;
    }
    return (await this.#store.head(blobKey(digest), options)) !== undefined;
  }

  /** The list of chunks of a blob; `undefined` if there is no such blob, or it cannot be read. */
  async #chunkList(digest: B3Digest, options?: AbortOptions): Promise<ChunkList | undefined> {
    const object = await this.#store.get(blobKey(digest), { signal: options?.signal });
    if (object === undefined) return undefined;
    const bytes = await collectAtMost(object, MAX_LIST_BYTES);
    const hex = bytes === undefined ? "" : B3Digest.of(bytes).hex;
    const fault = this.#faults.get(digest.hex);
    if (fault !== undefined) {
      if (fault.list === hex && !(await this.#isHealed(fault, options))) return undefined;
      this.#faults.delete(digest.hex);
    }
    try {
      return { chunks: parseChunks(bytes), hex };
    } catch (error) {
      this.#loseBlob(
        digest,
        { list: hex },
        `its list of chunks is damaged: ${(error as Error).message}`,
      );
      return undefined;
    }
  }

  /** Whether what is wrong with a blob has been put right, although its list is the same. */
  async #isHealed({ chunk }: Fault, options?: AbortOptions): Promise<boolean> {
    if (chunk === undefined) return false;
    const found = await this.#chunks.get(chunk.digest, chunk.size, options);
    return found instanceof Uint8Array && found.length === chunk.size;
  }

  /** Reads a blob by its list of chunks. */
  #readList(digest: B3Digest, list: ChunkList, options?: ReadOptions): AsyncIterable<Uint8Array> {
    const { chunks, hex } = list;
    const fetch = async (chunk: ChunkMeta, options?: AbortOptions) => {
      const found = await this.#chunks.get(chunk.digest, chunk.size, options);
      if (found instanceof Uint8Array) {
        if (found.length === chunk.size) return found;
        const reason = `chunk ${chunk.digest} has ${found.length} bytes, listed are ${chunk.size}`;
        throw this.#loseBlob(digest, { list: hex, chunk }, reason);
      }
      // If it is longer, the list may be wrong, or the chunk: both are put anew.
      this.#chunks.lose(chunk.digest, found);
      const reason = `chunk ${chunk.digest} is ${found}`;
      throw this.#loseBlob(digest, { list: hex, chunk }, reason);
    };
    const stream = readChunked(chunks, fetch, options);
    const size = chunks.reduce((sum, chunk) => sum + chunk.size, 0);
    const { offset = 0, length = size } = options ?? {};
    if (offset > 0 || length < size) return stream;
    const fail = (found: B3Digest) => {
      return this.#loseBlob(digest, { list: hex }, `its chunks make up ${found}`);
    };
    return verifyBlob(stream, { digest, size, fail });
  }

  /** A blob of one length; `undefined` if it is absent, damaged or of another. */
  async #readOfSize(blob: ChunkMeta, options?: AbortOptions): Promise<Uint8Array | undefined> {
    const { digest, size } = blob;
    const found = await this.#chunks.get(digest, Math.min(size, MAX_CHUNK_BYTES), options);
    if (found instanceof Uint8Array) return found.length === size ? found : undefined;
    if (found === "longer") return undefined;
    if (found === "damaged") this.#chunks.lose(digest, found);
    // Without the chunk, what is left is a blob of several, or none.
    const read: BlobService["read"] = async (digest, options) => {
      const list = await this.#chunkList(digest, options);
      if (list === undefined) return undefined;
      if (list.chunks.length > 0) return this.#readList(digest, list, options);
      if (digest.equals(EMPTY)) return readChunked([], () => Promise.reject(), options);
      throw this.#chunks.lose(digest, found);
    };
    return await readWhole({ read }, blob, options);
  }

  /** Notes that a blob cannot be read any more, so that putting it again heals. */
  #loseBlob(digest: B3Digest, fault: Fault, reason: string): CastoreError {
    const message = `Cannot read blob ${digest} in ${this.#store.name}: ${reason}`;
    if (!this.#faults.has(digest.hex)) this.#onCorrupt(message);
    this.#faults.set(digest.hex, fault);
    return new CastoreError("data_loss", message);
  }
}

function blobKey(digest: B3Digest): string {
  return objectKey("blobs", digest);
}

/** @throws Error that says what is wrong with a list of chunks; `undefined` is one that is too long */
function parseChunks(bytes: Uint8Array | undefined): readonly ChunkMeta[] {
  if (bytes === undefined) throw new Error(`it has more than ${MAX_LIST_BYTES} bytes`);
  return fromBinary(StatBlobResponseSchema, bytes).chunks.map(({ digest, size }) => {
    if (size > 0n && size <= BigInt(MAX_CHUNK_BYTES)) {
      return { digest: B3Digest.fromBytes(digest), size: Number(size) };
    }
    throw new Error(`it has a chunk of ${size} bytes`);
  });
}
