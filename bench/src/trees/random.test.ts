import { describe, expect, it } from "vitest";
import { logNormal, seeded } from "./random.ts";

describe("log-normal numbers", () => {
  it("have the median that was asked for, and a mean that follows from the spread", () => {
    const rng = seeded(1);
    const numbers = Array.from({ length: 20_000 }, () => logNormal(rng, 4096, 1.62));
    numbers.sort((a, b) => a - b);
    const mean = numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
    expect(numbers[10_000]! / 4096).toBeCloseTo(1, 1);
    expect(mean / (4096 * Math.exp(1.62 ** 2 / 2))).toBeCloseTo(1, 0);
  });
});
