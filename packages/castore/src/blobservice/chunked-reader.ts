import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError } from "../model/errors.ts";
import { resolveRange } from "../model/range.ts";
import type { ChunkMeta, ReadOptions } from "./blob-service.ts";

/** Options of {@link readChunked}. */
export interface ReadChunkedOptions extends ReadOptions {
  /**
   * How many bytes of chunks are fetched or held at most, the piece that was yielded last included.
   * A chunk larger than that is fetched alone. Default: 4 MiB.
   */
  readAhead?: number;
  /** Is given what was yielded and is no longer lent. Default: nobody is. */
  release?: (data: Uint8Array) => void;
}

const DEFAULT_READ_AHEAD = 4 * 1024 * 1024;

/** A chunk, and which part of it is to be read. */
interface Piece {
  readonly chunk: ChunkMeta;
  readonly start: number;
  readonly end: number;
}

/**
 * Reads a range of a blob by fetching the chunks that it overlaps, some ahead of the reader, and
 * yields them in order, each lent until the next one is asked for. Iterated once at most. However
 * iterating ends, no fetch is left running.
 *
 * @param chunks all chunks of the blob in order
 * @param fetch gives the bytes of a chunk, verified; called for one chunk while others are under way
 * @throws CastoreError `invalid_argument` for an offset or length that is no natural number;
 *   `data_loss`, from iterating, for a chunk of another size than listed. What `fetch` rejects with
 *   comes when everything before that chunk has been yielded
 */
export function readChunked(
  chunks: readonly ChunkMeta[],
  fetch: (chunk: ChunkMeta, options?: AbortOptions) => Promise<Uint8Array>,
  options: ReadChunkedOptions = {},
): AsyncIterable<Uint8Array> {
  const { signal, readAhead = DEFAULT_READ_AHEAD } = options;
  signal?.throwIfAborted();
  const size = chunks.reduce((sum, chunk) => sum + chunk.size, 0);
  const { start, end } = resolveRange(size, options);
  return readPieces(piecesOf(chunks, start, end), fetch, { ...options, readAhead, signal });
}

function piecesOf(chunks: readonly ChunkMeta[], start: number, end: number): Piece[] {
  const pieces: Piece[] = [];
  let position = 0;
  for (const chunk of chunks) {
    if (position >= end) break;
    const from = Math.max(start - position, 0);
    const to = Math.min(end - position, chunk.size);
    if (from < to) pieces.push({ chunk, start: from, end: to });
    position += chunk.size;
  }
  return pieces;
}

async function* readPieces(
  pieces: readonly Piece[],
  fetch: (chunk: ChunkMeta, options?: AbortOptions) => Promise<Uint8Array>,
  options: ReadChunkedOptions & { readAhead: number },
): AsyncGenerator<Uint8Array, void, void> {
  const { readAhead, release, signal: callerSignal } = options;
  const abandon = new AbortController();
  const signals = [abandon.signal, ...(callerSignal === undefined ? [] : [callerSignal])];
  // A single piece is awaited before anything can end the reading: most blobs need no signal of ours.
  const signal = pieces.length > 1 ? AbortSignal.any(signals) : callerSignal;
  const ahead: Promise<Uint8Array>[] = [];
  let bytesAhead = 0;
  let next = 0;

  async function read({ chunk, start, end }: Piece): Promise<Uint8Array> {
    const data = await fetch(chunk, { signal });
    if (data.length !== chunk.size) {
      throw new CastoreError(
        "data_loss",
        `Cannot read chunk ${chunk.digest}: expected ${chunk.size} bytes, found ${data.length}`,
      );
    }
    return data.subarray(start, end);
  }

  try {
    for (const { chunk } of pieces) {
      callerSignal?.throwIfAborted();
      while (next < pieces.length) {
        const piece = pieces[next]!;
        const fits = bytesAhead + piece.chunk.size <= readAhead;
        if (!fits && ahead.length > 0) break;
        const data = read(piece);
        data.catch(() => undefined); // awaited when its turn comes, or never
        ahead.push(data);
        bytesAhead += piece.chunk.size;
        next++;
      }
      const data = await ahead.shift()!;
      callerSignal?.throwIfAborted();
      yield data;
      release?.(data);
      bytesAhead -= chunk.size;
    }
  } finally {
    if (ahead.length > 0) abandon.abort(); // it is costly
    await Promise.allSettled(ahead);
  }
}
