import type { AbortOptions } from "../bytes/abort-options.ts";
import { Chunker } from "../chunking/chunker.ts";
import { type Blake3Hasher, blake3 } from "../hash/blake3.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import type { BlobWriter } from "./blob-service.ts";
import { type ChunkList, ChunkListBuilder } from "./chunk-list.ts";

/**
 * Where the chunks of one blob go. First any number of `putChunk`, one after the other, then either
 * `commit` or `discard`, each once at most; `discard` also follows a `putChunk` or a `commit` that
 * failed.
 */
export interface ChunkSink {
  /**
   * Takes the next chunk of the blob, whose bytes are lent until it resolves. That is when there is room
   * for more, not necessarily once the chunk is stored.
   */
  putChunk(digest: B3Digest, data: Uint8Array): Promise<void>;

  /**
   * Makes the blob readable. Resolves once it is durable.
   *
   * @param digest digest of the blob
   * @param chunks all chunks in order. A single one has the digest of the blob; the empty blob has none, though it was
   *   put as a chunk
   */
  commit(digest: B3Digest, chunks: ChunkList): Promise<void>;

  /** Drops what was taken: nothing of it becomes readable. */
  discard(): Promise<void>;
}

/** Options of {@link ChunkedBlobWriter}. */
export interface ChunkedBlobWriterOptions extends AbortOptions {
  /** Average length of a chunk in bytes, a power of two from 16 KiB to 4 MiB. Default: 256 KiB. */
  averageChunkSize?: number;
}

/** How much of one `write` is cut at a time: it bounds the chunks that wait for the sink. */
const STEP = 1024 * 1024;

const EMPTY = new Uint8Array(0);

/**
 * Cuts a blob into chunks, hashes it and them, and hands them to a {@link ChunkSink}.
 *
 * A failed or cancelled call makes the sink discard the blob, and every further call rejects with the
 * same error. Calls after disposal, and `write` after `close`, reject with CastoreError
 * `invalid_argument`. A call that does not wait for the one before it is queued.
 */
export class ChunkedBlobWriter implements BlobWriter {
  readonly #sink: ChunkSink;
  readonly #signal: AbortSignal | undefined;
  readonly #chunker: Chunker;
  readonly #chunks = new ChunkListBuilder();
  /** Hashes the blob, from the first chunk on that is not known to be the only one. */
  #blobHasher: Blake3Hasher | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #closed: Promise<B3Digest> | undefined;
  #failure: { readonly error: unknown } | undefined;

  /** @throws CastoreError `invalid_argument` for an average chunk size that is not offered */
  constructor(sink: ChunkSink, options: ChunkedBlobWriterOptions = {}) {
    this.#sink = sink;
    this.#signal = options.signal;
    this.#chunker = new Chunker(options.averageChunkSize);
  }

  async write(data: Uint8Array): Promise<void> {
    if (this.#closed !== undefined) {
      await this.#closed;
      throw new CastoreError("invalid_argument", "Cannot write to blob writer: it is closed");
    }
    await this.#inTurn(async () => {
      for (let at = 0; at < data.length; at += STEP) {
        for (const chunk of this.#chunker.push(data.subarray(at, at + STEP))) {
          await this.#putChunk(chunk);
        }
      }
    });
  }

  close(): Promise<B3Digest> {
    this.#closed ??= this.#inTurn(async () => {
      const rest = this.#chunker.finish();
      let only: B3Digest | undefined;
      if (this.#chunks.length === 0) only = await this.#putOnlyChunk(rest ?? EMPTY);
      else if (rest !== undefined) await this.#putChunk(rest);
      const digest = only ?? B3Digest.fromBytes(this.#takeHash()!);
      await this.#sink.commit(digest, this.#chunks.finish());
      return digest;
    });
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed !== undefined) {
      await this.#closed.catch(() => undefined); // reported to whoever called close
      return;
    }
    await this.#last;
    if (this.#failure !== undefined) return;
    const error = new CastoreError("invalid_argument", "Cannot use blob writer: it is disposed");
    this.#failure = { error };
    this.#takeHash();
    await this.#sink.discard();
  }

  /** Runs a call after those before it, unless one has failed; makes its failure the writer's. */
  #inTurn<T>(call: () => Promise<T>): Promise<T> {
    const result = this.#last.then(async () => {
      if (this.#failure !== undefined) throw this.#failure.error;
      try {
        this.#signal?.throwIfAborted();
        return await call();
      } catch (error) {
        this.#failure = { error };
        this.#takeHash();
        await this.#sink.discard().catch(() => undefined); // the first error says more
        throw error;
      }
    });
    this.#last = result.catch(() => undefined);
    return result;
  }

  async #putChunk(data: Uint8Array): Promise<void> {
    this.#blobHasher ??= blake3.createHasher();
    this.#blobHasher.update(data);
    await this.#putOnlyChunk(data);
  }

  /** Puts a chunk without hashing it for the blob too: one that is the whole blob has its digest. */
  async #putOnlyChunk(data: Uint8Array): Promise<B3Digest> {
    const digest = blake3Digest(data);
    if (data.length > 0) this.#chunks.push(digest, data.length);
    await this.#sink.putChunk(digest, data);
    this.#signal?.throwIfAborted();
    return digest;
  }

  /**
   * The hash of the blob, if it was computed. Also called where it is of no use, because an
   * unfinished hasher of the portable implementation is never freed.
   */
  #takeHash(): Uint8Array | undefined {
    const hash = this.#blobHasher?.digest();
    this.#blobHasher = undefined;
    return hash;
  }
}
