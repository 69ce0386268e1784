/** The task of lanes that decompresses frames of chunks. */
import { B3Digest } from "../model/digest.ts";
import type { LaneContext } from "../worker/lane.ts";
import { verifyStored } from "./stored-contents.ts";

/** Frames to decompress. */
export interface DecodeFramesTask {
  /** The frames, one after the other, in memory of their own, which is freed. */
  readonly frames: Uint8Array<ArrayBuffer>;
  /** Length of each frame. */
  readonly lengths: Float64Array;
  /** The digests of the contents, one after the other. */
  readonly digests: Uint8Array;
  /** Length of the contents of each. */
  readonly sizes: Float64Array;
}

/** Result of decompressing frames. */
export interface DecodedFrames {
  /** The contents of all, one after the other. */
  readonly contents: Uint8Array;
  /** 1 for each frame whose contents have the length and the digest. */
  readonly isWhole: Uint8Array;
}

/** Decompresses frames, and compares their contents with the digests. */
export function decodeFrames(task: DecodeFramesTask, { transfer }: LaneContext): DecodedFrames {
  const { frames, lengths, digests, sizes } = task;
  const contents = Buffer.allocUnsafeSlow(sizes.reduce((sum, size) => sum + size, 0));
  transfer(contents.buffer);
  const isWhole = new Uint8Array(sizes.length);
  let [from, at] = [0, 0];
  for (const [i, size] of sizes.entries()) {
    const frame = frames.subarray(from, from + lengths[i]!);
    from += frame.length;
    const piece = contents.subarray(at, at + size);
    at += size;
    const digest = digests.subarray(i * B3Digest.LENGTH, (i + 1) * B3Digest.LENGTH);
    isWhole[i] = verifyStored({ frame }, digest, piece) ? 1 : 0;
  }
  frames.buffer.transfer(0); // left to the garbage collector, several times as much would be in memory
  return { contents, isWhole };
}
