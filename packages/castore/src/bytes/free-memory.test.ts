import { describe, expect, it } from "vitest";
import { freeMemory } from "./free-memory.ts";

const BYTES = 128 * 1024;

describe("freeMemory", () => {
  it("frees a buffer that has nothing but the pieces", () => {
    const whole = new Uint8Array(BYTES);
    freeMemory([whole]);
    expect(whole.buffer.detached).toBe(true);
    const { buffer } = new Uint8Array(BYTES);
    const halves = [new Uint8Array(buffer, 0, 1000), new Uint8Array(buffer, 1000)];
    freeMemory(halves);
    expect(halves.map(({ length }) => length)).toEqual([0, 0]);
  });

  it("leaves a buffer alone that has something else, is small, or is shared", () => {
    const part = new Uint8Array(new ArrayBuffer(BYTES), 1);
    const [one, other] = [new Uint8Array(BYTES), new Uint8Array(BYTES)];
    const small = new Uint8Array(1000);
    const shared = new Uint8Array(new SharedArrayBuffer(BYTES));
    for (const pieces of [[], [part], [one, other], [small], [shared]]) freeMemory(pieces);
    const lengths = [part, one, other, small, shared].map(({ length }) => length);
    expect(lengths).toEqual([BYTES - 1, BYTES, BYTES, 1000, BYTES]);
  });
});
