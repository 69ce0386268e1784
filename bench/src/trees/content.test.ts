import { constants, zstdCompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { library, noise, text } from "./content.ts";
import { seeded } from "./random.ts";

const ZSTD = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
const ratio = (data: Buffer) => data.length / zstdCompressSync(data, ZSTD).length;

describe("generated contents", () => {
  it("are the same for the same seed, and others for another", () => {
    for (const content of [text, library, noise]) {
      expect(content(seeded(3), 10_001)).toEqual(content(seeded(3), 10_001));
      expect(content(seeded(3), 10_001)).not.toEqual(content(seeded(4), 10_001));
    }
  });

  it("compress as what they stand for does", () => {
    expect(ratio(library(seeded(1), 4_000_000))).toBeGreaterThan(2.5);
    expect(ratio(library(seeded(1), 4_000_000))).toBeLessThan(3.5);
    expect(ratio(text(seeded(1), 15_000))).toBeGreaterThan(2.5);
    expect(ratio(text(seeded(1), 15_000))).toBeLessThan(4);
    expect(ratio(noise(seeded(1), 100_000))).toBeLessThan(1);
  });
});
