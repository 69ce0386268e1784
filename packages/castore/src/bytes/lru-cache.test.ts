import { setTimeout } from "node:timers/promises";
import { expect, it } from "vitest";
import { lruCache } from "./lru-cache.ts";

it("evicts the least recently used entry", () => {
  const cache = lruCache<string, true>(3);
  for (const key of ["a", "b", "c"]) cache.set(key, true);
  expect(cache.has("a")).toBe(true);
  cache.get("a");
  cache.set("d", true);
  expect(["a", "b", "c", "d"].map((key) => cache.has(key))).toEqual([true, false, true, true]);
  cache.delete("c");
  cache.set("e", true);
  expect([...cache.keys()]).toEqual(["e", "d", "a"]);
});

it("forgets an entry after its time", async () => {
  const cache = lruCache<string, true>(3, { ttlMs: 20 });
  cache.set("a", true);
  expect(cache.get("a")).toBe(true);
  await setTimeout(40);
  cache.set("b", true);
  expect([cache.get("a"), cache.get("b")]).toEqual([undefined, true]);
});
