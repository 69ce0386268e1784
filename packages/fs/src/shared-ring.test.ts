import fc from "fast-check";
import { expect, test } from "vitest";
import { bytesIn, type Region, RingWriter, release, sharedRing } from "./shared-ring.ts";

test("bytes stay as they were written until they are released, which makes room", () => {
  const steps = fc.array(fc.oneof(fc.nat(40), fc.constant("release" as const)), {
    maxLength: 300,
  });
  fc.assert(
    fc.property(steps, (steps) => {
      const ring = sharedRing(64);
      const writer = new RingWriter(ring);
      const held: { region: Region; value: number }[] = [];
      for (const [i, step] of steps.entries()) {
        if (step === "release") {
          const first = held.shift();
          if (first !== undefined) release(ring, first.region);
        } else {
          const region = writer.write(new Uint8Array(step).fill(i));
          if (region !== undefined) held.push({ region, value: i });
          else expect(held.some(({ region }) => region.length > 0) || step > 32).toBe(true);
        }
        for (const { region, value } of held) {
          expect(bytesIn(ring, region).every((byte) => byte === value % 256)).toBe(true);
        }
      }
    }),
    { numRuns: 300, seed: 19 },
  );
});

test("there is room for as much as is released, without end", () => {
  const ring = sharedRing(2 ** 20);
  const writer = new RingWriter(ring);
  const bytes = new Uint8Array(2 ** 19);
  for (let i = 0; i < 5000; i++) {
    const region = writer.write(bytes); // more than all positions
    expect(region?.length).toBe(bytes.length);
    release(ring, region!);
  }
  expect([writer.write(bytes), writer.write(bytes), writer.write(bytes)]).toEqual([
    expect.anything(),
    expect.anything(),
    undefined,
  ]);
  expect(writer.write(new Uint8Array(0))?.length).toBe(0);
});

test("what is longer than the ring never fits", () => {
  expect(new RingWriter(sharedRing(64)).write(new Uint8Array(65))).toBeUndefined();
});
