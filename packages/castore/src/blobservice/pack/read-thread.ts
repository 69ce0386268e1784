/** The task of lanes that reads packs. */
import type { LaneContext } from "../../worker/lane.ts";
import { type ReadChunks, type ReadChunksTask, readChunks as read } from "./read-chunks.ts";

/** Reads chunks, and transfers the bytes to the thread that asked. */
export function readChunks(task: ReadChunksTask, { transfer }: LaneContext): ReadChunks {
  return read(task, (length) => {
    const memory = Buffer.allocUnsafeSlow(length);
    transfer(memory.buffer);
    return memory;
  });
}
