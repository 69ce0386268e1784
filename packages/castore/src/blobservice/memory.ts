import type { AbortOptions } from "../bytes/abort-options.ts";
import { copyBytes, freeBuffer } from "../bytes/byte-string.ts";
import type { B3Digest } from "../model/digest.ts";
import type { BlobService, BlobWriter, ChunkMeta, LentBlobs, ReadOptions } from "./blob-service.ts";
import { readChunked } from "./chunked-reader.ts";
import { ChunkedBlobWriter } from "./chunked-writer.ts";
import { hasOneByOne, putOneByOne, readOneByOne } from "./one-by-one.ts";

/** Keeps blobs in memory, equal chunks once, for as long as the service itself is kept. */
export class MemoryBlobService implements BlobService {
  /** By digest in hexadecimal. Every chunk of every blob, also the blobs that are one chunk. */
  readonly #chunks: Map<string, Uint8Array> = new Map();
  /** By digest in hexadecimal. The chunk lists of blobs of two or more. */
  readonly #blobs: Map<string, readonly ChunkMeta[]> = new Map();

  async has({ hex }: B3Digest, options?: AbortOptions): Promise<boolean> {
    options?.signal?.throwIfAborted();
    return this.#blobs.has(hex) || this.#chunks.has(hex);
  }

  async chunks(
    { hex }: B3Digest,
    options?: AbortOptions,
  ): Promise<readonly ChunkMeta[] | undefined> {
    options?.signal?.throwIfAborted();
    return this.#blobs.get(hex) ?? (this.#chunks.has(hex) ? [] : undefined);
  }

  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    options?.signal?.throwIfAborted();
    let chunks = this.#blobs.get(digest.hex);
    if (chunks === undefined) {
      const chunk = this.#chunks.get(digest.hex);
      if (chunk === undefined) return undefined;
      chunks = [{ digest, size: chunk.length }];
    }
    // The reader gets a copy: whatever it does to the bytes, what is stored matches its digest.
    return readChunked(chunks, async (chunk) => copyBytes(this.#chunks.get(chunk.digest.hex)!), {
      ...options,
      release: freeBuffer,
    });
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    return hasOneByOne(this, digests, options);
  }

  readMany(blobs: readonly ChunkMeta[], options?: AbortOptions): Promise<LentBlobs> {
    return readOneByOne(this, blobs, options);
  }

  putMany(blobs: readonly Uint8Array[], options?: AbortOptions): Promise<readonly B3Digest[]> {
    return putOneByOne(this, blobs, options);
  }

  openWriter(options?: AbortOptions): BlobWriter {
    const staged = new Map<string, Uint8Array>();
    return new ChunkedBlobWriter(
      {
        putChunk: async ({ hex }, data) => {
          if (!this.#chunks.has(hex)) staged.set(hex, copyBytes(data));
        },
        commit: async ({ hex }, chunks) => {
          for (const [key, data] of staged) this.#chunks.set(key, data);
          if (chunks.length > 1) this.#blobs.set(hex, chunks);
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
}
