import type { AbortOptions } from "../bytes/abort-options.ts";
import { joinApart } from "../bytes/byte-string.ts";
import type { Task } from "../worker/lane.ts";
import { taskOf } from "../worker/lane.ts";
import { runTask } from "../worker/lanes.ts";
import type { FrameBatch } from "./blob-service.ts";
import type { ChunkMeta } from "./chunk-list.ts";
import { type DecodedFrames, decodeFrames as decodeInLane } from "./frame-decoder.ts";
import { decodeFrame, expectFrameEach } from "./frames.ts";

const DECODE: Task<typeof decodeInLane> = taskOf(import.meta.url, "frame-decoder", "decodeFrames");

/** Contents up to this length are decoded by the calling thread, in half a millisecond: a trip to another takes about as long. */
const INLINE_BYTES = 512 * 1024;

/** How much is verified at a time, unless one frame is more. */
const BYTES_AT_A_TIME = 4 * 1024 * 1024;
const FRAMES_AT_A_TIME = 1024;

/** A chunk, and one zstd frame of it. */
export interface FramedChunk {
  readonly chunk: ChunkMeta;
  readonly frame: Uint8Array;
}

/**
 * Decompresses frames that somebody else has made, in a lane if they are many.
 *
 * @returns the contents of each, in memory that they share; `undefined` where a frame is not of its chunk
 */
export async function decodeFrames(
  framed: readonly FramedChunk[],
): Promise<readonly (Uint8Array | undefined)[]> {
  const { contents, isWhole } = await decode(framed);
  let at = 0;
  return framed.map(({ chunk }, i) => {
    const piece = contents.subarray(at, at + chunk.size);
    at += chunk.size;
    return isWhole[i] === 1 ? piece : undefined;
  });
}

/** Tells of each frame that somebody else has made whether it is of its chunk. Decodes it as {@link decodeFrames} does. */
export async function verifyFrames(framed: readonly FramedChunk[]): Promise<readonly boolean[]> {
  const { contents, isWhole } = await decode(framed);
  (contents.buffer as ArrayBuffer).transfer(0); // left to the garbage collector, a hundred megabytes would be in memory
  return Array.from(isWhole, (whole) => whole === 1);
}

/**
 * Decompresses the frames of a batch as {@link verifyFrames} does, some megabytes at a time.
 *
 * @throws CastoreError `invalid_argument` for the first frame that is not of its chunk, or cannot be served to others
 */
export async function expectWholeFrames(
  { chunks, frames }: Pick<FrameBatch, "chunks" | "frames">,
  options?: AbortOptions,
): Promise<void> {
  expectFrameEach(chunks, frames);
  let at = 0;
  for (const batch of chunks.batches(FRAMES_AT_A_TIME, BYTES_AT_A_TIME)) {
    const framed = batch.map((chunk, i) => ({ chunk, frame: frames[at + i]! }));
    at += batch.length;
    const areWhole = await verifyFrames(framed);
    options?.signal?.throwIfAborted();
    const damaged = framed[areWhole.indexOf(false)];
    if (damaged !== undefined) decodeFrame(damaged.frame, damaged.chunk); // throws, and says what is wrong
  }
}

async function decode(framed: readonly FramedChunk[]): Promise<DecodedFrames> {
  const sizes = Float64Array.from(framed, ({ chunk }) => chunk.size);
  const lengths = Float64Array.from(framed, ({ frame }) => frame.length);
  const frames = joinApart(framed.map(({ frame }) => frame));
  const digests = joinApart(framed.map(({ chunk }) => chunk.digest.bytes));
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const isNext = total <= INLINE_BYTES;
  const task = { frames, lengths, digests, sizes };
  const decoded = await runTask(DECODE, task, { here: decodeInLane, isNext });
  if (!frames.buffer.detached) frames.buffer.transfer(0); // the lane had a copy
  return decoded;
}
