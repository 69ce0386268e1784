/** What lanes have in common that cut contents in a slab. */
import { cutEnds } from "../chunking/cut-ends.ts";
import { fillSync } from "../disk/source-file.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { B3Digest } from "../model/digest.ts";
import { type ChunkList, ChunkListBuilder } from "./chunk-list.ts";
import type { PieceRead } from "./piecewise-file.ts";

/** A piece of a file, which fills the beginning of a slab or ends with the file. */
export interface PieceToRead {
  readonly fd: number;
  /** Where a chunk of the file starts. */
  readonly position: number;
  readonly slab: SharedArrayBuffer;
  /** Length of the contents that the slab takes, in bytes. */
  readonly contentsBytes: number;
  /** Average length of chunks in bytes. */
  readonly averageChunkSize: number;
}

/** A piece of a file that was read and cut. */
export interface CutPiece extends PieceRead {
  /** Where its chunks end, as offsets in the slab. */
  readonly ends: readonly number[];
}

/** Reads and cuts a piece of a file, and blocks the thread. */
export function readPieceInto(piece: PieceToRead): CutPiece {
  const { fd, position, slab, contentsBytes, averageChunkSize } = piece;
  const length = fillSync(fd, new Uint8Array(slab, 0, contentsBytes), position);
  const isLast = length < contentsBytes;
  const ends = cutEnds(new Uint8Array(slab, 0, length), isLast, averageChunkSize);
  return { length: ends.at(-1) ?? 0, isLast, ends };
}

/**
 * Hashes the chunks of contents. Returns their list.
 *
 * @param ends where they end, as offsets
 * @param onChunk receives each of them, in order. Default: none
 */
export function listChunks(
  contents: Uint8Array,
  ends: readonly number[],
  onChunk?: (digest: B3Digest, chunk: Uint8Array) => void,
): ChunkList {
  const list = new ChunkListBuilder(ends.length);
  let from = 0;
  for (const end of ends) {
    const chunk = contents.subarray(from, end);
    const digest = blake3Digest(chunk);
    onChunk?.(digest, chunk);
    list.push(digest, chunk.length);
    from = end;
  }
  return list.finish();
}
