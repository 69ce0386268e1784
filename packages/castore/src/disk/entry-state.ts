import type { Stats } from "node:fs";

/** What the file system says of an entry; all of it changes with the entry, or tells it from others. */
export type EntryState = Pick<Stats, "dev" | "ino" | "mode" | "size" | "mtimeMs" | "ctimeMs">;

/** How many numbers the state of an entry takes where it is packed. */
export const STATE_NUMBERS = 6;

/** Packs the state of an entry, as the one at an index. */
export function writeState(states: Float64Array, i: number, state: EntryState): void {
  const at = i * STATE_NUMBERS;
  states[at] = state.dev;
  states[at + 1] = state.ino;
  states[at + 2] = state.mode;
  states[at + 3] = state.size;
  states[at + 4] = state.mtimeMs;
  states[at + 5] = state.ctimeMs;
}

/** Reads the state that {@link writeState} packed. */
export function readState(states: Float64Array, i: number): EntryState {
  const at = i * STATE_NUMBERS;
  return {
    dev: states[at]!,
    ino: states[at + 1]!,
    mode: states[at + 2]!,
    size: states[at + 3]!,
    mtimeMs: states[at + 4]!,
    ctimeMs: states[at + 5]!,
  };
}
