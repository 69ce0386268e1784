import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { resolveRange } from "../model/range.ts";
import type { BlobReader, ReadOptions } from "./blob-service.ts";
import type { ChunkList, ChunkMeta } from "./chunk-list.ts";

/**
 * Reads a chunk, verified, into memory that belongs to whoever called. May be called while others are under way.
 *
 * @param offset where the chunk begins in the blob
 */
export type FetchChunk = (
  chunk: ChunkMeta,
  options: AbortOptions,
  offset: number,
) => Promise<Uint8Array>;

/** Options of {@link readChunked}. */
export interface ReadChunkedOptions extends ReadOptions {
  /**
   * How many bytes of chunks are fetched or held at most, the piece that was yielded last included.
   * A chunk larger than that is fetched alone. Default: 4 MiB.
   */
  readAhead?: number;
}

const DEFAULT_READ_AHEAD = 4 * 1024 * 1024;

/**
 * Reads a range of a blob by fetching the chunks that it overlaps, some ahead of the reader, and
 * yields them in order. Iterated once at most. However iterating ends, no fetch is left running.
 *
 * @param chunks all chunks of the blob in order
 * @throws CastoreError `invalid_argument` for an offset or length that is no natural number;
 *   `data_loss`, from iterating, for a chunk of another size than listed. What `fetch` rejects with
 *   comes when everything before that chunk has been yielded
 */
export function readChunked(
  chunks: ChunkList,
  fetch: FetchChunk,
  options: ReadChunkedOptions = {},
): AsyncIterable<Uint8Array> {
  options.signal?.throwIfAborted();
  const range = resolveRange(chunks.size, options);
  return readRange(chunks, fetch, { ...options, ...range });
}

async function* readRange(
  chunks: ChunkList,
  fetch: FetchChunk,
  options: ReadChunkedOptions & { start: number; end: number },
): AsyncGenerator<Uint8Array, void, void> {
  const { readAhead = DEFAULT_READ_AHEAD, start, end, signal: callerSignal } = options;
  if (start === end) return;
  const first = chunks.indexAt(start);
  const last = chunks.indexAt(end - 1);
  const abandon = new AbortController();
  const signals = [abandon.signal, ...(callerSignal === undefined ? [] : [callerSignal])];
  // A single chunk is awaited before anything can end the reading: most blobs need no signal of ours.
  const signal = last > first ? AbortSignal.any(signals) : callerSignal;
  const ahead: Promise<Uint8Array>[] = [];
  let bytesAhead = 0;
  let next = first;
  let offset = chunks.offsetAt(first);
  let nextOffset = offset;
  try {
    for (let i = first; i <= last; i++) {
      callerSignal?.throwIfAborted();
      while (next <= last) {
        const size = chunks.sizeAt(next);
        if (bytesAhead + size > readAhead && ahead.length > 0) break;
        const data = fetchOfSize(chunks.at(next), fetch, signal, nextOffset);
        data.catch(() => undefined); // awaited when its turn comes, or never
        ahead.push(data);
        bytesAhead += size;
        nextOffset += size;
        next += 1;
      }
      const data = await ahead.shift()!;
      callerSignal?.throwIfAborted();
      yield data.subarray(Math.max(start - offset, 0), end - offset);
      const size = chunks.sizeAt(i); // the bytes may have been transferred
      offset += size;
      bytesAhead -= size;
    }
  } finally {
    if (ahead.length > 0) abandon.abort(); // it is costly
    await Promise.allSettled(ahead);
  }
}

async function fetchOfSize(
  chunk: ChunkMeta,
  fetch: FetchChunk,
  signal: AbortSignal | undefined,
  offset: number,
): Promise<Uint8Array> {
  const data = await fetch(chunk, { signal }, offset);
  if (data.length === chunk.size) return data;
  throw new CastoreError(
    "data_loss",
    `Cannot read chunk ${chunk.digest}: expected ${chunk.size} bytes, found ${data.length}`,
  );
}

/** A reader of a blob whose chunks are fetched one by one. Holds nothing but their list. */
export class ChunkedBlobReader implements BlobReader {
  readonly digest: B3Digest;
  readonly size: number;
  readonly chunks: ChunkList;
  readonly #fetch: FetchChunk;
  #disposed = false;

  /** @param chunks all chunks of the blob in order, which are known to make it up */
  constructor(digest: B3Digest, chunks: ChunkList, fetch: FetchChunk) {
    this.digest = digest;
    this.size = chunks.size;
    this.chunks = chunks;
    this.#fetch = fetch;
  }

  async read(offset: number, length: number, options?: AbortOptions): Promise<Uint8Array> {
    if (this.#disposed) {
      const message = `Cannot read blob ${this.digest}: its reader is disposed of`;
      throw new CastoreError("invalid_argument", message);
    }
    const signal = options?.signal;
    const stream = readChunked(this.chunks, this.#fetch, { offset, length, signal });
    const { start, end } = resolveRange(this.size, { offset, length });
    const contents = new Uint8Array(end - start);
    let filled = 0;
    for await (const piece of stream) {
      contents.set(piece, filled);
      filled += piece.length;
    }
    return contents;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
  }
}
