import { expect, it } from "vitest";
import { mapSome } from "./map-some.ts";

it("maps those that are picked by one call, each in its place", async () => {
  const calls: (readonly number[])[] = [];
  const double = async (picked: readonly number[]) => {
    calls.push(picked);
    return picked.map((one) => one * 2);
  };
  const odd = (one: number) => (one % 2 === 1 ? one : undefined);
  expect(await mapSome([1, 2, 3, 4, 5], odd, double)).toEqual([2, undefined, 6, undefined, 10]);
  expect(calls).toEqual([[1, 3, 5]]);
  expect(await mapSome([2, 4], odd, double)).toEqual([undefined, undefined]);
  expect(calls.length).toBe(1);
});
