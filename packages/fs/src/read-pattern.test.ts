import { expect, test } from "vitest";
import { ReadPattern } from "./read-pattern.ts";

const OPTIONS = { first: 8, most: 32, tolerance: 2 };

test("sequential reads fetch ahead twice as much each time, up to a limit", () => {
  const pattern = new ReadPattern(OPTIONS);
  const ahead: unknown[] = [];
  for (let at = 0; at < 7; at++) ahead.push(pattern.note(1, at * 4, at * 4 + 4));
  expect(ahead).toEqual([
    { from: 4, to: 12 },
    { from: 12, to: 24 },
    { from: 24, to: 44 },
    undefined,
    undefined,
    undefined,
    { from: 44, to: 60 },
  ]);
});

test("random reads fetch nothing ahead", () => {
  const pattern = new ReadPattern(OPTIONS);
  expect([90, 10, 500, 30].map((at) => pattern.note(1, at, at + 4))).toEqual(
    Array(4).fill(undefined),
  );
});

test("a read that goes on after a random one is sequential again", () => {
  const pattern = new ReadPattern(OPTIONS);
  pattern.note(1, 500, 504);
  expect(pattern.note(1, 504, 508)).toEqual({ from: 508, to: 516 });
});

test("what is read by two at once is told apart by what it is", () => {
  const pattern = new ReadPattern(OPTIONS);
  pattern.note(1, 0, 4);
  expect(pattern.note(2, 0, 4)).toEqual({ from: 4, to: 12 });
  expect(pattern.note(1, 4, 8)).toEqual({ from: 12, to: 24 });
});
