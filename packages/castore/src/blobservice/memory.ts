import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { ByteArena } from "../bytes/byte-arena.ts";
import { copyBytes } from "../bytes/byte-string.ts";
import { isUncut } from "../chunking/chunker.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { B3Digest } from "../model/digest.ts";
import type {
  BlobReader,
  BlobService,
  BlobStat,
  BlobWriter,
  FrameBatch,
  PutListOptions,
  ReadOptions,
} from "./blob-service.ts";
import { ChunkList, type ChunkMeta } from "./chunk-list.ts";
import { ChunkedBlobReader, readChunked } from "./chunked-reader.ts";
import { ChunkedBlobWriter } from "./chunked-writer.ts";
import { framesByCompressing, putFramesByContents } from "./frames.ts";
import { hasOneByOne, readOneByOne, statOneByOne } from "./one-by-one.ts";
import { putBlob } from "./put-blob.ts";
import { expectPlausibleList, hashListed, putListByReading } from "./put-list.ts";

const EMPTY = new Uint8Array(0);

/** After how many chunks of a list other events get their turn. */
const LOOKUPS_PER_TURN = 4096;

/** Keeps blobs in memory, equal chunks once, for as long as the service itself is kept. */
export class MemoryBlobService implements BlobService {
  readonly #arena = new ByteArena();
  /** By digest in hexadecimal. Every chunk of every blob, also the blobs that are one chunk. */
  readonly #chunks: Map<string, Uint8Array> = new Map();
  /** By digest in hexadecimal. The chunk lists of blobs of two or more. */
  readonly #blobs: Map<string, ChunkList> = new Map();

  async has({ key }: B3Digest, options?: AbortOptions): Promise<boolean> {
    options?.signal?.throwIfAborted();
    return this.#blobs.has(key) || this.#chunks.has(key);
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    return hasOneByOne(this, digests, options);
  }

  statMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (BlobStat | undefined)[]> {
    return statOneByOne(this, digests, options);
  }

  async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    options?.signal?.throwIfAborted();
    const chunks = this.#listOf(digest);
    return chunks && new ChunkedBlobReader(digest, chunks, this.#fetch);
  }

  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    options?.signal?.throwIfAborted();
    const chunks = this.#listOf(digest);
    return chunks && readChunked(chunks, this.#fetch, options);
  }

  readMany(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    return readOneByOne(this, blobs, options);
  }

  async putMany(
    blobs: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly B3Digest[]> {
    const digests: B3Digest[] = [];
    for (const data of blobs) {
      options?.signal?.throwIfAborted();
      digests.push(
        isUncut(data.length) ? this.#putChunk(data) : await putBlob(this, data, options),
      );
    }
    return digests;
  }

  async putList(digest: B3Digest, chunks: ChunkList, options?: PutListOptions): Promise<void> {
    options?.signal?.throwIfAborted();
    expectPlausibleList(digest, chunks);
    if (!(await this.#areChunks(chunks))) {
      await putListByReading(this, digest, chunks, options); // tells which is absent, and cuts anew what is no chunk
      return;
    }
    if (!options?.proven) await hashListed(this, digest, chunks, options);
    if (chunks.length === 0) this.#chunks.set(digest.key, EMPTY);
    if (chunks.length > 1) this.#blobs.set(digest.key, chunks);
  }

  async putFrames(batch: FrameBatch, options?: AbortOptions): Promise<void> {
    await putFramesByContents(this, batch, options);
  }

  frames(chunks: ChunkList, options?: AbortOptions): AsyncIterable<Uint8Array> {
    return framesByCompressing(this, chunks, options);
  }

  openWriter(options?: AbortOptions): BlobWriter {
    const staged = new Map<string, Uint8Array>();
    return new ChunkedBlobWriter(
      {
        putChunk: async ({ key }, data) => {
          if (!this.#chunks.has(key)) staged.set(key, this.#arena.keep(data));
        },
        commit: async ({ key }, chunks) => {
          for (const [key, data] of staged) this.#chunks.set(key, data);
          if (chunks.length > 1) this.#blobs.set(key, chunks);
          staged.clear();
        },
        discard: async () => staged.clear(),
      },
      options,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Nothing is held but memory.
  }

  #putChunk(data: Uint8Array): B3Digest {
    const digest = blake3Digest(data);
    if (!this.#chunks.has(digest.key)) this.#chunks.set(digest.key, this.#arena.keep(data));
    return digest;
  }

  #listOf(digest: B3Digest): ChunkList | undefined {
    const { key } = digest;
    const found = this.#blobs.get(key);
    if (found !== undefined) return found;
    const chunk = this.#chunks.get(key);
    if (chunk === undefined) return undefined;
    return ChunkList.of(chunk.length > 0 ? [{ digest, size: chunk.length }] : []);
  }

  /** Copies a chunk: whatever the reader does to the bytes, what is stored matches its digest. */
  readonly #fetch = async ({ digest }: ChunkMeta): Promise<Uint8Array> =>
    copyBytes(this.#chunks.get(digest.key)!);

  /** Whether all of a list are chunks: one may be a blob of several. */
  async #areChunks(chunks: ChunkList): Promise<boolean> {
    for (let i = 0; i < chunks.length; i++) {
      const { digest, size } = chunks.at(i);
      if (this.#chunks.get(digest.key)?.length !== size) return false;
      if (i % LOOKUPS_PER_TURN === LOOKUPS_PER_TURN - 1) await yieldToEvents();
    }
    return true;
  }
}
