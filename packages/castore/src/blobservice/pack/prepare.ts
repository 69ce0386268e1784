/** What a lane does with contents on their way into packs: it reads, hashes, cuts, looks up and compresses them. */

import { type Blake3Hasher, blake3 } from "../../hash/blake3.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { B3Digest } from "../../model/digest.ts";
import { Scratch } from "../../worker/scratch.ts";
import { ChunkList } from "../chunk-list.ts";
import { type FilesRead, readFilesInto } from "../file-batch.ts";
import { decodeFrame } from "../frames.ts";
import { wrongList } from "../put-list.ts";
import { HEADER_LENGTH } from "./format.ts";
import {
  closeIndex,
  type LaneStore,
  type PreparedRecords,
  type PrepareTask,
  RecordBatch,
} from "./record-batch.ts";

/** Memory of this thread for the contents of one chunk. */
const chunkMemory = new Scratch();

/** A batch of contents that are in the slab, one after the other, each no longer than the shortest chunk that is cut. */
export interface BytesTask extends PrepareTask {
  readonly lengths: Uint32Array;
  /** The digest of each, 32 bytes, one after the other. Default: they are computed. */
  readonly digests?: Uint8Array | undefined;
  /** For each, 1 if it becomes a blob of its own. */
  readonly areBlobs: Uint8Array;
}

export interface PreparedBytes extends PreparedRecords {
  /** The digest of each, 32 bytes, one after the other. */
  readonly digests: Uint8Array;
  /** For each, 1 if it is stored already, as a chunk that some blob uses. */
  readonly isLive: Uint8Array;
}

/** A batch of files that are read whole, and the records of their contents. */
export interface PreparedFiles extends PreparedRecords {
  readonly files: FilesRead;
}

/** A piece of a file that was read into the slab. */
export interface PieceTask extends PrepareTask {
  /** Where its chunks end, as offsets in the slab; none for a file that is empty. */
  readonly ends: readonly number[];
}

export interface PreparedPiece extends PreparedRecords {
  /** Its chunks, packed. */
  readonly list: Uint8Array;
}

/** Prepares a batch of contents, each as one chunk. */
export function prepareBytes({
  lengths,
  digests: known,
  areBlobs,
  ...task
}: BytesTask): PreparedBytes {
  using batch = new RecordBatch(task);
  const digests = known ?? new Uint8Array(lengths.length * B3Digest.LENGTH);
  const isLive = new Uint8Array(lengths.length);
  let at = 0;
  for (let i = 0; i < lengths.length; i++) {
    const length = lengths[i]!;
    const data = batch.contents(at, length);
    const place = digests.subarray(i * B3Digest.LENGTH, (i + 1) * B3Digest.LENGTH);
    const digest = known ? B3Digest.fromBytes(place) : blake3Digest(data);
    const state = batch.addChunk(digest, data, { isBlob: areBlobs[i] === 1 });
    isLive[i] = state === "live" ? 1 : 0;
    if (!known) place.set(digest.bytes);
    at += length;
  }
  return { ...batch.finish(), digests, isLive };
}

/** Reads and prepares a batch of files. */
export function prepareFiles({
  paths,
  ...task
}: PrepareTask & { readonly paths: readonly string[] }): PreparedFiles {
  using batch = new RecordBatch(task);
  const { slab, recordsAt: contentsBytes } = task;
  const files = readFilesInto({ paths, slab, contentsBytes }, (data) => batch.addWholeBlob(data));
  return { ...batch.finish(), files };
}

/** Prepares a piece of a file. */
export function preparePiece({ ends, ...task }: PieceTask): PreparedPiece {
  using batch = new RecordBatch(task);
  if (ends.length === 0) batch.addWholeBlob(new Uint8Array(0));
  return { list: batch.addChunks(ends), ...batch.finish() };
}

/**
 * Chunks that somebody else has compressed. Their frames are in the slab, from `recordsAt` on, where they are in their records
 * if all of them are new: each has room for a header before it.
 */
export interface FramesTask extends PrepareTask {
  /** The chunks, packed. */
  readonly chunks: Uint8Array;
  /** The length of each frame. */
  readonly lengths: Uint32Array;
  /** Blobs that are made of some of the chunks in a row, in order. */
  readonly blobs: readonly ChunkRun[];
  /** Receives the contents, one after the other, which fit. Default: they are not kept. */
  readonly contents?: SharedArrayBuffer | undefined;
}

/** A blob that is made of chunks in a row. */
export interface ChunkRun {
  readonly digest: Uint8Array;
  readonly first: number;
  readonly count: number;
}

/**
 * Decompresses and hashes frames, and prepares them as they are.
 *
 * @throws CastoreError `invalid_argument` for a frame that is not of its chunk or cannot be served to others, `data_loss`
 *   for chunks that do not make up their blob
 */
export function prepareFrames({
  chunks,
  lengths,
  blobs,
  contents,
  ...task
}: FramesTask): PreparedRecords {
  using batch = new RecordBatch(task);
  const list = ChunkList.fromBytes(chunks);
  const runs = new BlobRuns(blobs);
  let at = task.recordsAt;
  let contentsAt = 0;
  for (const [i, length] of lengths.entries()) {
    const chunk = list.at(i);
    at += HEADER_LENGTH;
    const frame = batch.contents(at, length);
    const target = contents
      ? new Uint8Array(contents, contentsAt, chunk.size)
      : chunkMemory.take(chunk.size);
    contentsAt += chunk.size;
    runs.update(i, decodeFrame(frame, chunk, target));
    batch.addFrame(chunk.digest, chunk.size, frame);
    at += length;
  }
  for (const { digest, first, count } of blobs) {
    const { ENTRY_BYTES } = ChunkList;
    const entries = chunks.subarray(first * ENTRY_BYTES, (first + count) * ENTRY_BYTES);
    batch.addBlob(B3Digest.fromBytes(digest), entries);
  }
  return batch.finish();
}

/** Hashes blobs whose chunks come in a row. */
class BlobRuns {
  readonly #runs: readonly ChunkRun[];
  #next = 0;
  #hasher: Blake3Hasher | undefined;

  constructor(runs: readonly ChunkRun[]) {
    this.#runs = runs;
  }

  /** Takes the contents of the next chunk. */
  update(i: number, contents: Uint8Array): void {
    const run = this.#runs[this.#next];
    if (run === undefined || i < run.first) return;
    this.#hasher ??= blake3.createHasher();
    this.#hasher.update(contents);
    if (i < run.first + run.count - 1) return;
    const expected = B3Digest.fromBytes(run.digest);
    const found = B3Digest.fromBytes(this.#hasher.digest());
    this.#hasher = undefined;
    this.#next += 1;
    if (!found.equals(expected)) throw wrongList(expected, found);
  }
}

/** Closes the index that a lane has opened of a store. */
export function closeStore(store: LaneStore): void {
  closeIndex(store);
}
