import { type Task, taskOf } from "../worker/lane.ts";
import { runTask } from "../worker/lanes.ts";
import {
  bzip2Memory,
  bzip2Start,
  type decodeBzip2,
  INPUT_BYTES,
  MAX_BLOCK_INPUT,
} from "./bzip2-decoder.ts";

const DECODE: Task<typeof decodeBzip2> = taskOf(import.meta.url, "bzip2-decoder", "decodeBzip2");

/**
 * Decompresses bzip2 in steps, each in a thread of the pool, when the next piece is asked for. Holds 8 MB.
 *
 * @param source its pieces may be lent until the next one is asked for
 * @throws Error that says what is wrong with the source
 */
export async function* bunzip2(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const pieces = source[Symbol.asyncIterator]();
  const memory = bzip2Memory();
  const input = new Uint8Array(memory.input);
  const output = new Uint8Array(memory.output);
  let state = bzip2Start();
  let [length, isLast] = [0, false];
  let rest: Uint8Array = new Uint8Array(0);
  for (;;) {
    const used = state.bit >>> 3;
    if (!isLast && length - used < MAX_BLOCK_INPUT) {
      input.copyWithin(0, used, length);
      [state.bit, length] = [state.bit & 7, length - used];
      while (!isLast && length < MAX_BLOCK_INPUT) {
        if (rest.length === 0) {
          const { done, value } = await pieces.next();
          if (done) isLast = true;
          else rest = value;
        }
        const fitting = rest.subarray(0, INPUT_BYTES - length);
        input.set(fitting, length);
        length += fitting.length;
        rest = rest.subarray(fitting.length);
      }
    }
    const step = await runTask(DECODE, { memory, state, length, isLast });
    state = step.state;
    if (step.written > 0) yield output.slice(0, step.written);
    if (step.fault !== undefined) throw new Error(step.fault);
    if (step.ended) return;
  }
}
