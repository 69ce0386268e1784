import { readFileSync, statSync, truncateSync } from "node:fs";
import { noise } from "./noise.ts";
import { flipBit } from "./pack-store.ts";

/** A part of a file: from one position up to, but without, another. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** Truncates a file at a random position, not before `from`. Returns the range cut off. */
export function cutOff(file: string, seed: number, from = 0): Span[] {
  const { size } = statSync(file);
  const at = from + (random(seed)[0]! % (size - from));
  truncateSync(file, at);
  return [{ from: at, to: size }];
}

/** Flips one to four bits of a file at random positions, not before `from`. Returns the positions. */
export function flipBits(file: string, seed: number, from = 0): Span[] {
  const { length } = readFileSync(file);
  const [count, ...positions] = random(seed);
  return positions.slice(0, 1 + (count! % 4)).map((number, i) => {
    const at = from + (number % (length - from));
    flipBit(file, at, i);
    return { from: at, to: at + 1 };
  });
}

/** Five numbers of 32 bits, the same for the same seed. */
function random(seed: number): number[] {
  const bytes = noise(20, seed);
  return Array.from({ length: 5 }, (_, i) => bytes.readUInt32LE(i * 4));
}
