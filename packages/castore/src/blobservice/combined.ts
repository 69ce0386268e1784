import type { AbortOptions } from "../bytes/abort-options.ts";
import { copyBytes } from "../bytes/byte-string.ts";
import { freeMemory } from "../bytes/free-memory.ts";
import { lruCache } from "../bytes/lru-cache.ts";
import { SingleFlight } from "../bytes/single-flight.ts";
import { type CacheOptions, OriginCache } from "../cache/origin-cache.ts";
import { WriteThrough } from "../cache/write-through.ts";
import { Chunker } from "../chunking/chunker.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { Outboard } from "../hash/outboard.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError, hasCode } from "../model/errors.ts";
import { resolveRange } from "../model/range.ts";
import type { Measured, StoreStatistics } from "../model/statistics.ts";
import type {
  BlobReader,
  BlobService,
  BlobStat,
  BlobWriter,
  FrameBatch,
  PutListOptions,
  ReadOptions,
} from "./blob-service.ts";
import { ChunkCache, isChunk } from "./chunk-cache.ts";
import { ChunkList, ChunkListBuilder, type ChunkMeta } from "./chunk-list.ts";
import { ChunkedBlobReader, type FetchChunk, readChunked } from "./chunked-reader.ts";
import { framesByCompressing, putLists } from "./frames.ts";
import { expectPlausibleList, hashListed } from "./put-list.ts";
import { storedSizesOf } from "./stored-sizes.ts";
import type { OutboardSource } from "./verified-range.ts";
import { PieceHasher } from "./verify-blob.ts";

/** How many lists of chunks are being stored in the local store at the same time. */
const MAX_LISTS = 16;

/** How many chunks are looked up together. */
const CHUNKS_PER_LOOKUP = 256;

/** How many blobs are remembered whose lists in the local store are wrong. */
const MAX_DISTRUSTED = 1024;

/** How a blob is cut, and who says so. */
interface Listed {
  readonly chunks: ChunkList;
  readonly isNear: boolean;
}

/**
 * Blobs in a local store in front of an origin.
 *
 * Everything is read chunk by chunk, by the list of the local store, or else that of the origin: each chunk from the
 * local store, or else from the origin. It is verified by its digest and then stored in the local store, see
 * {@link ChunkCache}. A blob that is read as a whole is hashed too: if the list is not that of the blob, reading fails
 * before the last chunk is handed out; if it is, the local store gets it, and has the blob from then on. Of a blob that
 * is read in part, the list is believed as far as the origin's own parts are: whoever trusts it no further uses
 * `verifiedRange`.
 *
 * Failures of the local store are warned of and fail no read, see {@link CacheOptions}; where the origin fails, so does
 * reading. Disposing of the cache abandons what is not stored within half a second; neither store is disposed of.
 */
export class CombinedBlobService implements BlobService, OutboardSource, Measured {
  readonly #cache: OriginCache<BlobService>;
  readonly #chunks: ChunkCache;
  /** Blobs whose lists are being stored, by digest. */
  readonly #listing = new Set<string>();
  readonly #opening = new SingleFlight<ChunkList | undefined>();
  /** Blobs whose lists in the local store were found wrong, by digest. */
  readonly #distrusted = lruCache<string, true>(MAX_DISTRUSTED);

  constructor(options: CacheOptions<BlobService>) {
    this.#cache = new OriginCache("CombinedBlobService", options);
    this.#chunks = new ChunkCache(this.#cache);
  }

  /** Returns how many items the local store had, and lacked. */
  async statistics(): Promise<StoreStatistics> {
    return this.#cache.statistics();
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    const [found] = await this.hasMany([digest], options);
    return found!;
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    return this.#cache.ask(
      "look up blobs in",
      digests,
      (store, digests, options) => store.hasMany(digests, options),
      options,
    );
  }

  statMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (BlobStat | undefined)[]> {
    return this.#cache.ask(
      "look up blobs in",
      digests,
      (store, digests, options) => store.statMany(digests, options),
      options,
    );
  }

  async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    const listed = await this.#find(digest, options);
    if (listed === undefined) return undefined;
    return new ChunkedBlobReader(digest, listed.chunks, this.#fetcherOf(digest));
  }

  async read(
    digest: B3Digest,
    options: ReadOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    resolveRange(Number.MAX_SAFE_INTEGER, options); // refuses before anything is asked
    try {
      const listed = await this.#find(digest, options);
      return listed && this.#read(digest, listed, options);
    } catch (error) {
      if (!hasCode(error, "unimplemented")) throw error;
      return await this.#readUncut(digest, options);
    }
  }

  readMany(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    return this.#chunks.readMany(blobs, options);
  }

  /** Whether the local store does: what the origin takes is made of that. */
  get keepsFrames(): boolean {
    const { near, mode } = this.#cache;
    return mode !== "far-only" && (near.keepsFrames ?? false);
  }

  async putFrames(batch: FrameBatch, options?: AbortOptions): Promise<void> {
    const { near, far, mode } = this.#cache;
    if (mode === "near-only") {
      await near.putFrames(batch, options);
      return;
    }
    const chunks = { ...batch, blobs: [] };
    await far.putFrames(chunks, options);
    if (mode === "write-through") {
      const frames = batch.frames.map(copyBytes); // if the local store hangs, it may use them after this call
      const put = async (near: BlobService, options: AbortOptions) => {
        await near.putFrames({ ...chunks, frames }, options);
        for (const frame of frames) freeMemory([frame]);
      };
      await this.#cache.write("put chunks into", put, options);
    }
    await putLists(this, batch.blobs, options);
  }

  /** Streams the frames that the local store has; others are made of chunks, which are thereby stored there. */
  async *frames(chunks: ChunkList, options?: AbortOptions): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < chunks.length; at += CHUNKS_PER_LOOKUP) {
      let rest = slice(chunks, at, at + CHUNKS_PER_LOOKUP);
      try {
        for await (const frame of this.#framesNear(rest, options)) {
          rest = slice(rest, 1);
          yield frame;
        }
      } catch {
        options?.signal?.throwIfAborted(); // else it was warned of
      }
      yield* framesByCompressing(this, rest, options);
    }
  }

  async putMany(
    blobs: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly B3Digest[]> {
    const { near, far, mode } = this.#cache;
    if (mode === "near-only") return await near.putMany(blobs, options);
    const digests = await far.putMany(blobs, options);
    if (mode === "far-only") return digests;
    const copies = blobs.map(copyBytes); // if the local store hangs, it may use them after this call
    const put = (near: BlobService, options: AbortOptions) => near.putMany(copies, options);
    await this.#cache.write("put blobs into", put, options);
    return digests;
  }

  async putList(digest: B3Digest, chunks: ChunkList, options: PutListOptions = {}): Promise<void> {
    const { near, far, mode } = this.#cache;
    const store = mode === "near-only" ? near : far;
    if (mode === "write-through" && !options.proven) {
      // The local store has them more likely: the origin need not read them again.
      expectPlausibleList(digest, chunks);
      await hashListed(this, digest, chunks, options);
    }
    const proven = mode === "write-through" || (options.proven ?? false);
    const proof = { ...options, proven };
    try {
      await store.putList(digest, chunks, proof);
    } catch (error) {
      if (!hasCode(error, "not_found")) throw error;
      await this.#complete(store, chunks, options);
      await store.putList(digest, chunks, proof);
    }
    if (mode === "write-through") this.#keepList(digest, chunks, proven);
  }

  /** Tells what chunks take in the origin. */
  async storedSizes(
    chunks: ChunkList,
    options?: AbortOptions,
  ): Promise<readonly (number | undefined)[]> {
    return await storedSizesOf(this.#cache.far, chunks, options);
  }

  openWriter(options?: AbortOptions): BlobWriter {
    const { near, far, mode } = this.#cache;
    if (mode === "near-only") return near.openWriter(options);
    if (mode === "far-only") return far.openWriter(options);
    return new WriteThroughBlob(
      this.#cache,
      (store, options) => store.openWriter(options),
      options,
    );
  }

  /** The outboard that one of the stores has. A failure of the origin counts only if the local store lacks the blob. */
  async outboard(digest: B3Digest, options?: AbortOptions): Promise<Outboard | undefined> {
    const action = `get the outboard of blob ${digest} from`;
    const get = (near: BlobService, options: AbortOptions) => outboardIn(near, digest, options);
    const near = await this.#cache.read(action, get, options);
    if (near !== undefined) return near;
    try {
      return await outboardIn(this.#cache.far, digest, options);
    } catch (error) {
      options?.signal?.throwIfAborted();
      const has = (near: BlobService, options: AbortOptions) => near.has(digest, options);
      if (await this.#cache.read("look up blobs in", has, options)) return undefined; // it can be made there
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cache[Symbol.asyncDispose]();
  }

  async #find(digest: B3Digest, options?: AbortOptions): Promise<Listed | undefined> {
    if (!this.#distrusted.has(digest.key)) {
      const list = (near: BlobService, options: AbortOptions) => listIn(near, digest, options);
      const near = await this.#cache.read(`open blob ${digest} in`, list, options);
      if (near !== undefined) return { chunks: near, isNear: true };
    }
    const list = (signal: AbortSignal) => listIn(this.#cache.far, digest, { signal });
    const far = await this.#opening.run(digest.key, list, options);
    return far && { chunks: far, isNear: false };
  }

  async *#read(
    digest: B3Digest,
    { chunks, isNear }: Listed,
    options: ReadOptions,
  ): AsyncGenerator<Uint8Array> {
    const { start, end } = resolveRange(chunks.size, options);
    const isWhole = start === 0 && end === chunks.size;
    using hasher = isWhole ? new PieceHasher() : undefined;
    const fail = (found: B3Digest) => {
      if (isNear) this.#distrusted.set(digest.key, true);
      return wrongList(digest, found);
    };
    const verify = async () => {
      await hasher?.expect({ digest, fail });
      if (isWhole && !isNear) this.#keepList(digest, chunks, true);
    };
    let at = start;
    for await (const data of readChunked(chunks, this.#fetcherOf(digest), options)) {
      hasher?.update(data);
      at += data.length;
      if (at === end) await verify();
      yield data;
    }
    if (start === end) await verify();
  }

  /** Streams a blob that the origin cuts into no chunks, or too large ones. All of it is cut for the local store. */
  async #readUncut(
    digest: B3Digest,
    options: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const stream = await this.#cache.far.read(digest, options);
    const isWhole = (options.offset ?? 0) === 0 && options.length === undefined;
    return stream && isWhole ? this.#cut(digest, stream) : stream;
  }

  async *#cut(digest: B3Digest, stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    using hasher = new PieceHasher();
    const chunker = new Chunker();
    const list = new ChunkListBuilder();
    const store = (chunk: Uint8Array) => {
      list.push(blake3Digest(chunk), chunk.length);
      this.#chunks.store([copyBytes(chunk)]);
    };
    async function* cut(): AsyncGenerator<Uint8Array> {
      for await (const data of stream) {
        for (const chunk of chunker.push(data)) store(chunk);
        yield data;
      }
      const last = chunker.finish();
      if (last !== undefined) store(last);
    }
    yield* hasher.verifyRest(cut(), { digest, fail: (found) => wrongList(digest, found) });
    this.#keepList(digest, list.finish(), true);
  }

  /** Makes what reads the chunks of a blob. */
  #fetcherOf(digest: B3Digest): FetchChunk {
    return async (chunk, options, offset) => {
      const [data] = await this.#chunks.readMany([chunk], options);
      return data ?? (await this.#readPart(digest, chunk, offset, options));
    };
  }

  /** Reads a chunk that the origin does not have as such, as a part of the blob: it may cut that elsewhere. */
  async #readPart(
    digest: B3Digest,
    chunk: ChunkMeta,
    offset: number,
    options?: AbortOptions,
  ): Promise<Uint8Array> {
    await using reader = await this.#cache.far.open(digest, options);
    const data = await reader?.read(offset, chunk.size, options);
    if (data === undefined || !isChunk(data, chunk)) {
      const reason = `chunk ${chunk.digest} at ${offset} is damaged or absent in both stores`;
      throw new CastoreError("data_loss", `Cannot read blob ${digest}: ${reason}`);
    }
    this.#chunks.store([copyBytes(data)]);
    return data;
  }

  async *#framesNear(chunks: ChunkList, options?: AbortOptions): AsyncGenerator<Uint8Array> {
    const digests = Array.from(chunks, ({ digest }) => digest);
    const has = (near: BlobService, options: AbortOptions) => near.hasMany(digests, options);
    const found = await this.#cache.read("look up blobs in", has, options);
    if (!found?.every((isThere) => isThere)) return;
    const open = (near: BlobService, options: AbortOptions) => near.frames(chunks, options);
    yield* this.#cache.stream("read frames from", open, options);
  }

  /** Has the list of a blob stored in the local store in the background, if that has all of the chunks. */
  #keepList(digest: B3Digest, chunks: ChunkList, proven: boolean): void {
    const { key } = digest;
    if (this.#listing.has(key) || this.#listing.size >= MAX_LISTS) return;
    this.#listing.add(key);
    const stored = this.#storeList(digest, chunks, proven).finally(() => this.#listing.delete(key));
    this.#cache.inBackground(stored);
  }

  async #storeList(digest: B3Digest, chunks: ChunkList, proven: boolean): Promise<void> {
    const { near, closing } = this.#cache;
    await this.#chunks.settled();
    try {
      // It may take long where the local store cuts blobs into smaller chunks.
      await near.putList(digest, chunks, { proven, signal: closing });
      this.#distrusted.delete(digest.key);
    } catch (error) {
      if (!hasCode(error, "not_found") && !closing.aborted)
        this.#cache.warn(`put blob ${digest} into`, error);
    }
  }

  /** Puts those chunks into a store that only the other one has: both count for whoever asks this cache. */
  async #complete(store: BlobService, chunks: ChunkList, options: AbortOptions): Promise<void> {
    for (let at = 0; at < chunks.length; at += CHUNKS_PER_LOOKUP) {
      const part = [...slice(chunks, at, at + CHUNKS_PER_LOOKUP)];
      const has = await store.hasMany(
        part.map(({ digest }) => digest),
        options,
      );
      for (const chunk of part.filter((_, i) => !has[i])) {
        const [data] = await this.readMany([chunk], options);
        if (data !== undefined) await store.putMany([data], options);
      }
    }
  }
}

/** Writes to both stores. */
class WriteThroughBlob extends WriteThrough<BlobService, BlobWriter> implements BlobWriter {
  async write(data: Uint8Array): Promise<void> {
    await this.far.write(data);
    const copy = copyBytes(data); // if the local store hangs, it may use it after this call
    await this.near.step((near) => near.write(copy));
  }
}

/** @throws CastoreError `data_loss` for a list of one chunk that is not the blob; what the service throws */
async function listIn(
  service: BlobService,
  digest: B3Digest,
  options?: AbortOptions,
): Promise<ChunkList | undefined> {
  await using reader = await service.open(digest, options);
  const chunks = reader?.chunks;
  if (chunks?.length === 1 && !chunks.digestAt(0).equals(digest)) {
    throw wrongList(digest, chunks.digestAt(0));
  }
  return chunks;
}

/** Part of a list. */
function slice(chunks: ChunkList, start: number, end?: number): ChunkList {
  const { ENTRY_BYTES } = ChunkList;
  return ChunkList.fromBytes(chunks.bytes.subarray(start * ENTRY_BYTES, end && end * ENTRY_BYTES));
}

function wrongList(digest: B3Digest, found: B3Digest): CastoreError {
  const reason = `expected chunks that make up that digest, found the chunks of blob ${found}`;
  return new CastoreError("data_loss", `Cannot read blob ${digest}: ${reason}`);
}

/** The outboard that a service has of a blob, without making it. */
async function outboardIn(
  service: BlobService | (BlobService & OutboardSource),
  digest: B3Digest,
  options?: AbortOptions,
): Promise<Outboard | undefined> {
  return "outboard" in service ? await service.outboard(digest, options) : undefined;
}
