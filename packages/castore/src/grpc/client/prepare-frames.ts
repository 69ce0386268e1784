/** What a lane does with files on their way to a server: it reads, hashes and cuts them, then compresses what is missing. */

import { ChunkListBuilder } from "../../blobservice/chunk-list.ts";
import { listChunks, type PieceToRead, readPieceInto } from "../../blobservice/cut-pieces.ts";
import { type FilesRead, type ReadFilesTask, readFilesInto } from "../../blobservice/file-batch.ts";
import { compressChunk } from "../../blobservice/pack/codec.ts";
import type { PieceRead } from "../../blobservice/piecewise-file.ts";
import { DEFAULT_AVERAGE_CHUNK_SIZE } from "../../chunking/chunker.ts";
import { cutEnds } from "../../chunking/cut-ends.ts";
import { zstdCodec } from "../../compression/zstd-codec.ts";
import { rawFrame } from "../../compression/zstd-frame.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";

/** Files that were read, and how they are cut. */
export interface CutFiles {
  readonly files: FilesRead;
  /** The chunks of all that were read, packed, as the contents are in the slab. */
  readonly chunks: Uint8Array;
  /** How many chunks each of those has; none if it is empty. */
  readonly counts: Uint32Array;
}

/** Reads, hashes and cuts small files. */
export function cutFiles(task: ReadFilesTask): CutFiles {
  const list = new ChunkListBuilder();
  const counts: number[] = [];
  const files = readFilesInto(task, (data) => {
    const ends = cutEnds(data, true, DEFAULT_AVERAGE_CHUNK_SIZE);
    counts.push(ends.length);
    const digest = blake3Digest(data);
    if (ends.length === 1) list.push(digest, data.length);
    else list.append(listChunks(data, ends).bytes);
    return digest;
  });
  return { files, chunks: list.finish().bytes, counts: Uint32Array.from(counts) };
}

/** Reads, hashes and cuts a piece of a file. The list is packed. */
export function cutPiece(piece: PieceToRead): PieceRead & { readonly chunks: Uint8Array } {
  const { ends, ...read } = readPieceInto(piece);
  return { ...read, chunks: listChunks(new Uint8Array(piece.slab), ends).bytes };
}

/** Chunks to compress. */
interface CompressTask {
  readonly slab: SharedArrayBuffer;
  /** Where the chunks start in the slab, and how long they are. */
  readonly starts: Uint32Array;
  readonly lengths: Uint32Array;
  /** Where in the slab the frames go. */
  readonly framesAt: number;
  /** Level of zstd. */
  readonly level: number;
}

/** Compresses chunks into frames, one after the other. Returns their lengths. */
export function compressChunks({
  slab,
  starts,
  lengths,
  framesAt,
  level,
}: CompressTask): Uint32Array {
  let at = framesAt;
  return lengths.map((length, i) => {
    const chunk = new Uint8Array(slab, starts[i]!, length);
    const target = new Uint8Array(slab, at);
    let size = compressChunk(chunk, target, zstdCodec(level));
    if (size === undefined) {
      const raw = rawFrame(chunk);
      target.set(raw);
      size = raw.length;
    }
    at += size;
    return size;
  });
}
