import type { AbortOptions } from "../bytes/abort-options.ts";
import { mapInParallel } from "../bytes/parallel.ts";
import { inTurns } from "../bytes/turns.ts";
import { zstdCodec } from "../compression/zstd-codec.ts";
import { compressToFrame, faultOfFrame } from "../compression/zstd-frame.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { MAX_CHUNK_BYTES } from "../model/limits.ts";
import type { BlobService, FrameBatch } from "./blob-service.ts";
import type { ChunkList, ChunkMeta } from "./chunk-list.ts";
import { readListed } from "./read-listed.ts";

/** `frames` of a service that does not store frames: reads the chunks and compresses them. */
export async function* framesByCompressing(
  service: Pick<BlobService, "readMany">,
  chunks: ChunkList,
  options?: AbortOptions,
): AsyncGenerator<Uint8Array> {
  for await (const { chunk, data } of readListed(service, chunks, options)) {
    if (data === undefined)
      throw unreadableChunk(chunk.digest, "it is absent, damaged or of another length");
    const frame = await compressToFrame(data);
    options?.signal?.throwIfAborted();
    yield frame;
  }
}

/** The error of `frames` for a chunk that cannot be had as it is listed. */
export function unreadableChunk(digest: B3Digest, reason: string): CastoreError {
  return new CastoreError("data_loss", `Cannot read chunk ${digest}: ${reason}`);
}

/** Longest window of a frame that is taken, in bytes. */
const MAX_WINDOW_BYTES: number = MAX_CHUNK_BYTES;

/** How many blobs are committed at the same time. */
const LISTS_AT_A_TIME = 4;

/** `putFrames` of a service that does not store frames: decompresses them and puts their contents. */
export async function putFramesByContents(
  service: Pick<BlobService, "putMany" | "putList">,
  { chunks, frames, blobs }: FrameBatch,
  options?: AbortOptions,
): Promise<void> {
  expectFrameEach(chunks, frames);
  const contents = await inTurns(
    frames.map((frame, i) => ({ frame, chunk: chunks.at(i) })),
    1,
    ({ frame, chunk }) => decodeFrame(frame, chunk),
    options,
  );
  if (contents.length > 0) await service.putMany(contents, options);
  await putLists(service, blobs, options);
}

/** Stores the blobs of a batch whose chunks are there, some at the same time. */
export async function putLists(
  service: Pick<BlobService, "putList">,
  blobs: FrameBatch["blobs"],
  options?: AbortOptions,
): Promise<void> {
  const put = ({ digest, chunks }: FrameBatch["blobs"][number], options: AbortOptions) =>
    service.putList(digest, chunks, options);
  await mapInParallel(blobs, LISTS_AT_A_TIME, put, options);
}

/**
 * Decompresses the frame of a chunk that somebody else has made.
 *
 * @param target takes the contents, at its beginning. Default: new memory
 * @throws CastoreError `invalid_argument` if it is not of that chunk, or cannot be served to others
 */
export function decodeFrame(frame: Uint8Array, chunk: ChunkMeta, target?: Uint8Array): Uint8Array {
  const { digest, size } = chunk;
  const fault = faultOfFrame(frame, size, MAX_WINDOW_BYTES);
  if (fault !== undefined) throw refusedFrame(digest, fault);
  const contents = target?.subarray(0, size) ?? Buffer.allocUnsafe(size);
  if (!zstdCodec().decompress(frame, contents)) {
    throw refusedFrame(digest, "it cannot be decompressed");
  }
  const found = blake3Digest(contents);
  if (found.equals(digest)) return contents;
  throw refusedFrame(digest, `its contents have digest ${found}`);
}

function refusedFrame(digest: B3Digest, fault: string): CastoreError {
  return new CastoreError("invalid_argument", `Cannot put the frame of chunk ${digest}: ${fault}`);
}

/** @throws CastoreError `invalid_argument` unless there is a frame for each chunk */
export function expectFrameEach(chunks: ChunkList, frames: readonly Uint8Array[]): void {
  if (chunks.length === frames.length) return;
  throw new CastoreError(
    "invalid_argument",
    `Cannot put frames: expected one for each of ${chunks.length} chunks, found ${frames.length}`,
  );
}
