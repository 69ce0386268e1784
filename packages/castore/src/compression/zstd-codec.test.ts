import { readFileSync } from "node:fs";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import {
  compressBound,
  KeptZstdCodec,
  PublicZstdCodec,
  type ZstdCodec,
  zstdCodec,
} from "./zstd-codec.ts";
import { contentSizeOf } from "./zstd-frame.ts";

const TEXT = Buffer.from("all work and no play ".repeat(5000));
/** Bytes that cannot be compressed: a linear congruential generator. */
const NOISE = Buffer.alloc(300_000);
for (let i = 0, x = 1; i < NOISE.length; i++) {
  x = (Math.imul(x, 1_103_515_245) + 12_345) >>> 0;
  NOISE[i] = x >>> 16;
}
const SAMPLES = [0, 1, 255, 256, 65_791, 65_792, 100_000].map((length) => TEXT.subarray(0, length));

function compress(codec: ZstdCodec, data: Uint8Array): Buffer {
  const target = Buffer.alloc(compressBound(data.length));
  return target.subarray(0, codec.compress(data, target)!);
}

describe.each([
  ["with contexts that are kept", KeptZstdCodec],
  ["by public functions alone", PublicZstdCodec],
])("a codec %s", (_, Codec) => {
  it("compresses into frames that state their content size, which others read", () => {
    const codec = new Codec(1);
    for (const data of [...SAMPLES, NOISE]) {
      const frame = compress(codec, data);
      expect(contentSizeOf(frame)).toBe(data.length);
      expect(zstdDecompressSync(frame).equals(data)).toBe(true);
    }
  });

  it("decompresses frames of others", () => {
    const codec = new Codec(1);
    for (const data of [...SAMPLES, NOISE]) {
      for (const params of [{}, { [constants.ZSTD_c_checksumFlag]: 1 }]) {
        const contents = Buffer.alloc(data.length);
        expect(codec.decompress(zstdCompressSync(data, { params }), contents)).toBe(true);
        expect(contents.equals(data)).toBe(true);
      }
    }
  });

  it("heeds the level", () => {
    const data = readFileSync(new URL(import.meta.url)); // this file
    const [fast, small] = [1, 19].map((level) => compress(new Codec(level), data).length);
    expect(small).toBeLessThan(fast!);
  });

  it("tells that a frame does not fit, and goes on", () => {
    const codec = new Codec(1);
    expect(codec.compress(NOISE, Buffer.alloc(1000))).toBeUndefined();
    expect(zstdDecompressSync(compress(codec, TEXT)).equals(TEXT)).toBe(true);
  });

  it("refuses every part of a frame, and every frame of another length, and goes on", () => {
    const codec = new Codec(1);
    const data = TEXT.subarray(0, 1000);
    const params = { [constants.ZSTD_c_checksumFlag]: 1 };
    const frame = zstdCompressSync(data, { params });
    const contents = Buffer.alloc(data.length);
    for (let length = 0; length < frame.length; length++) {
      expect(codec.decompress(frame.subarray(0, length), contents)).toBe(false);
    }
    for (const length of [0, 999, 1001]) {
      expect(codec.decompress(frame, Buffer.alloc(length))).toBe(false);
    }
    expect(codec.decompress(Buffer.concat([frame, frame]), contents)).toBe(false);
    expect(codec.decompress(frame, contents)).toBe(true);
    expect(contents.equals(data)).toBe(true);
  });

  it("decompresses contents of unknown length, up to a limit, and goes on after what is beyond it", () => {
    const codec = new Codec(1);
    const frameOf = (data: Uint8Array) => {
      const frame = zstdCompressSync(data, { params: { [constants.ZSTD_c_contentSizeFlag]: 0 } });
      expect(contentSizeOf(frame)).toBeUndefined();
      return frame;
    };
    for (const data of [TEXT.subarray(0, 1), TEXT, NOISE]) {
      const frame = frameOf(data);
      const contents = codec.decompressShort(frame, data.length + 1)!;
      expect(Buffer.from(contents).equals(data)).toBe(true);
      for (const limit of [1, data.length]) {
        expect(codec.decompressShort(frame, limit)).toBeUndefined();
      }
      expect(codec.decompressShort(frame.subarray(0, -1), 1_000_000)).toBeUndefined();
      expect(codec.decompressShort(Buffer.concat([frame, frame]), 1_000_000)).toBeUndefined();
    }
    const contents = codec.decompressShort(frameOf(TEXT), 1_000_000)!;
    const copy = Buffer.from(contents);
    codec.decompressShort(frameOf(NOISE), 1_000_000);
    expect(copy.equals(contents)).toBe(true); // it belongs to the caller
  });

  it("goes on after damage anywhere in a frame", () => {
    const codec = new Codec(1);
    const data = TEXT.subarray(0, 1000);
    const frame = zstdCompressSync(data);
    const contents = Buffer.alloc(data.length);
    for (let at = 0; at < frame.length; at++) {
      const damaged = Buffer.from(frame);
      damaged[at]! ^= 0x55;
      codec.decompress(damaged, contents); // may even succeed: there is no checksum
      contents.fill(0);
      expect(codec.decompress(frame, contents)).toBe(true);
      expect(contents.equals(data)).toBe(true);
    }
  });
});

it("keeps contexts on this version of Node.js", () => {
  expect(zstdCodec()).toBeInstanceOf(KeptZstdCodec);
  expect(zstdCodec()).toBe(zstdCodec(1));
});
