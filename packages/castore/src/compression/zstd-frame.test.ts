import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { compressToFrame, contentSizeOf, rawFrame } from "./zstd-frame.ts";

const KIB = 1024;

/** Bytes that look random and are the same every time. */
function noise(size: number): Buffer {
  return createHash("shake256", { outputLength: size }).update("frame").digest();
}

/** Lengths at which the header or the number of blocks changes. */
const SIZES = [
  0,
  1,
  255,
  256,
  257,
  65_791,
  65_792,
  128 * KIB - 1,
  128 * KIB,
  128 * KIB + 1,
  8 * KIB * KIB,
];

const hasZstd = (() => {
  try {
    execFileSync("zstd", ["--version"]);
    return true;
  } catch {
    return false;
  }
})();

describe("a frame of raw blocks", () => {
  it.each(SIZES)("holds %d bytes, and is read by zlib", (size) => {
    const data = noise(size);
    const frame = rawFrame(data);
    expect(frame.length).toBeLessThanOrEqual(
      size + 9 + 3 * Math.max(Math.ceil(size / (128 * KIB)), 1),
    );
    expect(contentSizeOf(frame)).toBe(size);
    const found = zstdDecompressSync(frame, { maxOutputLength: Math.max(size, 1) });
    expect(found.equals(data)).toBe(true);
  });

  it.runIf(hasZstd).each(SIZES)(
    `of %d bytes is read by the zstd command, which finds its size${hasZstd ? "" : " (missing: zstd)"}`,
    (size) => {
      const data = noise(size);
      const frame = rawFrame(data);
      const options = { input: frame, maxBuffer: 16 * KIB * KIB };
      expect(execFileSync("zstd", ["-dc"], options).equals(data)).toBe(true);
      const joined = Buffer.concat([frame, zstdCompressSync("between"), frame]);
      const all = execFileSync("zstd", ["-dc"], {
        ...options,
        input: joined,
        maxBuffer: 32 * KIB * KIB,
      });
      expect(all.equals(Buffer.concat([data, Buffer.from("between"), data]))).toBe(true);
    },
  );
});

describe("compressToFrame", () => {
  it.each(SIZES)("compresses %d bytes and states their number", async (size) => {
    const data = Buffer.alloc(size, "compressible ");
    const frame = await compressToFrame(data);
    expect(contentSizeOf(frame)).toBe(size);
    if (size > KIB) expect(frame.length).toBeLessThan(size / 2);
    expect(zstdDecompressSync(frame).equals(data)).toBe(true);
  });

  it.each(SIZES)("makes raw blocks of %d incompressible bytes", async (size) => {
    const data = noise(size);
    expect(Buffer.compare(await compressToFrame(data), rawFrame(data))).toBe(0);
  });
});

describe("contentSizeOf", () => {
  it("is unknown of a frame that does not state it", () => {
    const params = { [constants.ZSTD_c_contentSizeFlag]: 0 };
    expect(contentSizeOf(zstdCompressSync("contents", { params }))).toBeUndefined();
  });

  it("is unknown of what is no frame", () => {
    for (const bytes of [
      Buffer.alloc(0),
      Buffer.from("no frame of zstd"),
      rawFrame(noise(300)).subarray(0, 6),
    ]) {
      expect(contentSizeOf(bytes)).toBeUndefined();
    }
  });

  it("is read beside a window size, a dictionary and eight bytes of length", () => {
    // RFC 8878: descriptor 0b11_0_0_0_0_11: 8 bytes of content size, a window byte, 4 bytes of dictionary id.
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(2n ** 40n);
    const header = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0b1100_0011, 0x58, 1, 2, 3, 4, ...size]);
    expect(contentSizeOf(header)).toBe(2 ** 40);
  });
});
