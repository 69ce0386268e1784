/** Tasks for the tests of lanes. */
import { setTimeout as sleep } from "node:timers/promises";
import { CastoreError, type ErrorCode } from "../src/model/errors.ts";
import type { LaneContext } from "../src/worker/lane.ts";

export function echo(input: unknown): unknown {
  return input;
}

let given: Uint8Array | undefined;

export function give(
  length: number,
  { transfer }: LaneContext,
): { bytes: Uint8Array; lengthAfter: number } {
  given = new Uint8Array(length).fill(7);
  transfer(given.buffer as ArrayBuffer);
  return { bytes: given, lengthAfter: given.length };
}

export function lengthOfGiven(): number {
  return given!.length;
}

export function fail(code: ErrorCode): never {
  throw new CastoreError(code, "it is lost");
}

export function crash(): never {
  throw new TypeError("a mistake in the program");
}

export function exit(): never {
  process.exit(3);
}

export function fillHeap(): number {
  const all: object[] = [];
  for (;;) all.push({ at: all.length });
}

export async function wait(ms: number): Promise<void> {
  await sleep(ms);
}
