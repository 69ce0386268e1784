import fc from "fast-check";
import { expect, test } from "vitest";
import { ContentRing } from "./content-ring.ts";

const plain = (bytes: Uint8Array) => ({ bytes, form: "stored" }) as const;

test("what is held is what was stored, and the newest contents always are", () => {
  const lengths = fc.array(fc.nat(60), { maxLength: 200 });
  fc.assert(
    fc.property(lengths, (sizes) => {
      const ring = new ContentRing(100);
      for (const [i, size] of sizes.entries()) {
        ring.set(String(i), plain(new Uint8Array(size).fill(i)));
        expect(ring.has(String(i))).toBe(size <= 50);
        let held = 0;
        for (let j = 0; j <= i; j++) {
          const found = ring.get(String(j));
          if (found === undefined) continue;
          held += found.bytes.length;
          expect(Buffer.from(found.bytes)).toEqual(Buffer.alloc(sizes[j]!, j));
        }
        expect(held).toBeLessThanOrEqual(100);
      }
    }),
    { numRuns: 300, seed: 19 },
  );
});

test("contents are dropped in the order in which they came", () => {
  const ring = new ContentRing(100);
  for (const key of ["a", "b", "c", "d", "e"]) ring.set(key, plain(new Uint8Array(30)));
  expect(["a", "b", "c", "d", "e"].filter((key) => ring.has(key))).toEqual(["c", "d", "e"]);
});

test("contents that could not be written are not held, and may be written again", () => {
  const ring = new ContentRing(100);
  ring.set("before", plain(Buffer.from("whole")));
  expect(ring.fill("a", 10, (target) => !target.fill(1))).toBeUndefined();
  expect(ring.has("a")).toBe(false);
  const write = (target: Buffer) => target.fill(2).length === 10;
  expect(ring.fill("a", 10, write)).toEqual(Buffer.alloc(10, 2));
  expect(ring.get("a")).toEqual({ bytes: Buffer.alloc(10, 2), form: "verified" });
  expect(ring.fill("a", 10, write)).toBeUndefined();
  expect(ring.get("before")).toEqual(plain(Buffer.from("whole")));
});

test("contents that are forgotten may be stored anew, and then stay as long as others", () => {
  const ring = new ContentRing(100);
  ring.set("a", plain(new Uint8Array(30)));
  ring.set("b", plain(new Uint8Array(30)));
  ring.delete("a");
  expect(ring.has("a")).toBe(false);
  ring.set("a", { bytes: Buffer.alloc(30, 1), form: "frame" });
  ring.set("c", plain(new Uint8Array(30))); // in the room of the first
  expect(["a", "b", "c"].filter((key) => ring.has(key))).toEqual(["a", "b", "c"]);
  expect(ring.get("a")).toEqual({ bytes: Buffer.alloc(30, 1), form: "frame" });
});
