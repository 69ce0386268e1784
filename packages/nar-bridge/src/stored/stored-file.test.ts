import { createHash } from "node:crypto";
import { type Compression, collectBytes, decompress } from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { STORED_BROTLI } from "./brotli.ts";
import { STORED_GZIP } from "./gzip.ts";
import { type SeekableContents, StoredFile } from "./stored-file.ts";
import type { StoredFormat } from "./stored-format.ts";
import { STORED_XZ } from "./xz.ts";
import { STORED_ZSTD } from "./zstd.ts";

const FORMATS: readonly (readonly [Compression, StoredFormat])[] = [
  ["br", STORED_BROTLI],
  ["gzip", STORED_GZIP],
  ["xz", STORED_XZ],
  ["zstd", STORED_ZSTD],
];

/** Around the borders of blocks and segments. */
const SIZES = [
  1, 2, 3, 4, 100, 65_535, 65_536, 65_537, 131_072, 1_048_559, 1_048_560, 1_048_561, 1_048_576,
  1_048_577, 2_097_152, 3_500_001,
];

/** Bytes that look random, always the same. */
function seededBytes(seed: string, size: number): Uint8Array {
  return createHash("shake256", { outputLength: size }).update(seed).digest();
}

const CONTENTS = seededBytes("stored", Math.max(...SIZES));

/** Contents in pieces of 70,000 bytes, of which `given` are really there. */
function contentsOf(size: number, given = size): SeekableContents {
  return {
    size,
    async *read({ offset, length }) {
      const end = Math.min(offset + length, given);
      for (let at = offset; at < end; at += 70_000) {
        yield CONTENTS.subarray(at, Math.min(at + 70_000, end));
      }
    },
  };
}

/** Reads a file, or a part of it. */
function read(file: StoredFile, { offset = 0, length = file.size } = {}): Promise<Uint8Array> {
  return collectBytes(file.read({ offset, length }, new AbortController().signal));
}

/** Returns whether two byte strings are the same; `toEqual` takes seconds for long ones. */
function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

describe.each(FORMATS)("a stored file of %s", (compression, format) => {
  it.each(SIZES)("of %i bytes has the length that it states, and decompresses", async (size) => {
    const file = new StoredFile(format, contentsOf(size));
    const bytes = await read(file);
    expect(bytes.length).toBe(file.size);
    const stream = decompress(ReadableStream.from([bytes]), compression);
    expect(areEqual(await collectBytes(stream), CONTENTS.subarray(0, size))).toBe(true);
  });

  it("has the same bytes in any part as in the whole", async () => {
    const file = new StoredFile(format, contentsOf(3_500_001));
    const whole = await read(file);
    const seeds = Buffer.from(seededBytes(`parts of ${compression}`, 8 * 60));
    for (let i = 0; i < 60; i++) {
      const offset = seeds.readUInt32LE(i * 8) % (whole.length + 10);
      const length = seeds.readUInt32LE(i * 8 + 4) % (i % 2 === 0 ? 30 : whole.length);
      const part = await read(file, { offset, length });
      expect(areEqual(part, whole.subarray(offset, offset + length))).toBe(true);
    }
    for (let end = 0; end < 40; end++) {
      const length = end % 20;
      const offset = end < 20 ? 0 : whole.length - length;
      const part = await read(file, { offset, length });
      expect(areEqual(part, whole.subarray(offset, offset + length))).toBe(true);
    }
  });

  it("reads no contents beyond the segments of a part", async () => {
    const contents = contentsOf(3_500_001);
    const asked: { offset: number; length: number }[] = [];
    const file = new StoredFile(format, {
      size: contents.size,
      read(range, signal) {
        asked.push(range);
        return contents.read(range, signal);
      },
    });
    await read(file, { offset: 2_200_000, length: 10 });
    await read(file, { offset: file.size, length: 10 });
    const segment = format.maxBlock * 16;
    expect(asked).toEqual([
      {
        offset: Math.floor(2_200_000 / segment) * segment,
        length: expect.toSatisfy((n) => n <= segment),
      },
    ]);
  });

  it("breaks off where the contents are shorter than they should be", async () => {
    const file = new StoredFile(format, contentsOf(200_000, 100_000));
    await expect(read(file)).rejects.toThrow("expected 100000 more bytes");
  });
});
