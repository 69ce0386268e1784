import fc from "fast-check";
import { expect, test } from "vitest";
import { SlotMap } from "./slot-map.ts";

test("numbers keep their slots while others come and go, and no two have one", () => {
  const step = fc.record({ id: fc.nat(40).map((i) => i * 1024 + 2 ** 40), isAdded: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const map = new SlotMap(() => undefined);
      const expected = new Map<number, number>();
      for (const { id, isAdded } of steps) {
        if (!isAdded) map.delete(id);
        if (!isAdded) expected.delete(id);
        else if (!expected.has(id)) expected.set(id, map.add(id));
        for (const [id, slot] of expected) expect(map.get(id)).toBe(slot);
        expect(map.size).toBe(expected.size);
        expect(new Set(expected.values()).size).toBe(expected.size);
      }
    }),
    { seed: 19, numRuns: 30 },
  );
});

test("a table that grows is told before a slot is given that it has no room for", () => {
  let room = 0;
  const map = new SlotMap((capacity) => {
    room = capacity;
  });
  room = map.capacity;
  for (let id = 0; id < 5000; id++) expect(map.add(id * 7)).toBeLessThan(room);
  expect(map.get(7 * 4999)).toBe(4999);
  expect(map.get(1)).toBe(-1);
});
