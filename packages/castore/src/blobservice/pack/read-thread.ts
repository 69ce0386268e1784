/** The task of lanes that reads packs. */
import type { LaneContext } from "../../worker/lane.ts";
import { type ReadChunks, type ReadChunksTask, readChunks as read } from "./read-chunks.ts";

/** Reads chunks, and transfers the bytes to the thread that asked. */
export function readChunks(task: ReadChunksTask, { transfer }: LaneContext): ReadChunks {
  const { pieces, ...rest } = read(task);
  const [only] = pieces;
  if (pieces.length === 1 && only?.length === only?.buffer.byteLength) {
    if (only !== undefined) transfer(only.buffer as ArrayBuffer);
    return { pieces, ...rest };
  }
  // In one buffer: many would cost more than a copy.
  const length = pieces.reduce((sum, piece) => sum + (piece?.length ?? 0), 0);
  const { buffer } = Buffer.allocUnsafeSlow(length);
  let at = 0;
  const copies = pieces.map((piece) => {
    if (piece === undefined) return undefined;
    const copy = new Uint8Array(buffer, at, piece.length);
    copy.set(piece);
    at += piece.length;
    return copy;
  });
  transfer(buffer);
  return { pieces: copies, ...rest };
}
