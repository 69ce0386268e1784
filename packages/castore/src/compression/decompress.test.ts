import { brotliCompressSync, gzipSync, zstdCompressSync } from "node:zlib";
import { describe, expect, it, vi } from "vitest";
import { collectBytes } from "../bytes/byte-string.ts";
import {
  COMPRESSIONS,
  type Compression,
  compressionOf,
  decompress,
  MAGIC_LENGTH,
} from "./decompress.ts";

const CONTENTS = Buffer.from("some text, again and again; ".repeat(40_000));

/** The contents, compressed by `bzip2` and `xz` where Node.js cannot. */
const COMPRESSED: Readonly<Record<Compression, Buffer>> = {
  br: brotliCompressSync(CONTENTS),
  bzip2: Buffer.from(
    "QlpoOTFBWSZTWQwIfawGIXEZgEAEAAgmo4xAMAD4AgAAEAAATVSNABiFRBmFRB1CogzCog3Cog9hUQawqIN6FRBzQq" +
      "IMQqINIVEHYVEGYVEHVQqIPAqIPKFRBpCog9Cog4Cog+hUQYhUQdwqIPzFBWSZTWddehG4BjweZgEAEAAgmo4xAMAD" +
      "QCAAAJqpGgAIAAGJRIZlEh1KJDMokN1RIeyiQ1lEhvSiQ5pRIYlEhpKJDtUSGZRIdVKJDxUSHlKJDSUSHqokOFRIfS" +
      "iQxKJDuUSH4u5IpwoSGenP5sA=",
    "base64",
  ),
  gzip: gzipSync(CONTENTS),
  xz: Buffer.from(
    "/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj8Rb/AP1dADmbyfLnULjF4lzC4Bb20ZlYSCO/SSqgat8C1/CO95fSSzSLpU" +
      "guZwTl8NjuB3lhLwSM4sRQic2FtFK89ncCyULXwTuakWgxnfXIVTpowgq3gOl9/IGjcjMKxHS6e4TleADnf4heJmHG" +
      "n2abLaO7C+3jLDDbwlBUkSKXBgNfyXA7FMAyN5ilFQGl6KMJKuyq/1omrHIMFpKnvjmPJOFwnqcjX+woy4XRlZiKfi" +
      "qR8id19xnABphNmP3Yr9WQD8QlU/j1kTYxBaWw7m/BcE1HDNGREaqtYB26zrEnGFxZhulmUli+6XasWeTlWwUI+cfa" +
      "rfz7Uit0zR5aXLyUsAAAAAAAAszTS1oTFugAAZkCgK5EAGaMVimxxGf7AgAAAAAEWVo=",
    "base64",
  ),
  zstd: zstdCompressSync(CONTENTS),
};

async function* inPieces(data: Uint8Array, size = 1000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size);
}

function dataLoss() {
  return expect.objectContaining({ name: "CastoreError", code: "data_loss" });
}

describe.each(COMPRESSIONS)("decompress %s", (compression) => {
  const compressed = COMPRESSED[compression];
  const read = (data: Uint8Array) => collectBytes(decompress(inPieces(data), compression));

  it("gives what was compressed", async () => {
    expect(Buffer.compare(await read(compressed), CONTENTS)).toBe(0);
  });

  it("reads pieces that are only lent until the next one is asked for", async () => {
    const lent = async function* () {
      const buffer = new Uint8Array(10);
      for await (const piece of inPieces(compressed, buffer.length)) {
        buffer.set(piece);
        yield buffer.subarray(0, piece.length);
        buffer.fill(0xff);
      }
    };
    const found = await collectBytes(decompress(lent(), compression));
    expect(Buffer.compare(found, CONTENTS)).toBe(0);
  });

  it("refuses what is empty, broken off anywhere, or something else", async () => {
    await expect(read(new Uint8Array(0))).rejects.toThrow(dataLoss());
    await expect(read(Buffer.from("something else"))).rejects.toThrow(dataLoss());
    for (const length of [1, compressed.length >> 1, compressed.length - 1]) {
      await expect(read(compressed.subarray(0, length))).rejects.toThrow(dataLoss());
    }
  });

  it("passes on what the stream throws", async () => {
    const failure = new Error("the stream broke");
    const broken = async function* () {
      yield compressed.subarray(0, 20);
      throw failure;
    };
    await expect(collectBytes(decompress(broken(), compression))).rejects.toBe(failure);
  });

  it("rejects with the reason when it is cancelled, before or meanwhile", async () => {
    const reason = new Error("enough");
    const cancelled = { signal: AbortSignal.abort(reason) };
    const before = decompress(inPieces(compressed), compression, cancelled);
    await expect(collectBytes(before)).rejects.toBe(reason);
    const controller = new AbortController();
    const meanwhile = async function* () {
      yield compressed.subarray(0, 20);
      controller.abort(reason);
      yield compressed.subarray(20);
    };
    const { signal } = controller;
    await expect(collectBytes(decompress(meanwhile(), compression, { signal }))).rejects.toBe(
      reason,
    );
  });

  it("releases the stream when iterating ends early", async () => {
    let released = false;
    const watched = async function* () {
      try {
        yield* inPieces(compressed, 10);
      } finally {
        released = true;
      }
    };
    for await (const _ of decompress(watched(), compression)) break;
    expect(released).toBe(true);
  });
});

it.each(["bzip2", "gzip", "xz", "zstd"] as const)("reads several streams of %s", async (kind) => {
  const twice = Buffer.concat([COMPRESSED[kind], COMPRESSED[kind]]);
  const found = await collectBytes(decompress(inPieces(twice), kind));
  expect(Buffer.compare(found, Buffer.concat([CONTENTS, CONTENTS]))).toBe(0);
});

describe("compressionOf", () => {
  it.each(COMPRESSIONS.filter((name) => name !== "br"))("tells %s by its first bytes", (name) => {
    expect(compressionOf(COMPRESSED[name].subarray(0, MAGIC_LENGTH))).toBe(name);
  });

  it("tells zstd that begins with a frame to be skipped, of any kind", async () => {
    for (let kind = 0; kind < 16; kind++) {
      const skipped = Buffer.from("502a4d180400000001020304", "hex");
      skipped[0]! += kind;
      const stream = Buffer.concat([skipped, COMPRESSED.zstd, skipped, COMPRESSED.zstd]);
      expect(compressionOf(stream.subarray(0, MAGIC_LENGTH))).toBe("zstd");
      const found = await collectBytes(decompress(inPieces(stream), "zstd"));
      expect(Buffer.compare(found, Buffer.concat([CONTENTS, CONTENTS]))).toBe(0);
    }
  });

  it.each([
    ["nothing", ""],
    ["text", "some text that goes on"],
    ["a name like the magic of bzip2", "BZh9-is-a-name-of-a-file"],
    ["a magic that breaks off", "\x1f"],
  ])("tells nothing of %s", (_, text) => {
    expect(compressionOf(Buffer.from(text))).toBeUndefined();
  });

  it("tells bzip2 of nothing", () => {
    expect(compressionOf(Buffer.from("QlpoORdyRThQkAAAAAA=", "base64"))).toBe("bzip2");
  });
});

it("says so where the library for xz has no build for the platform", async () => {
  vi.doMock("@napi-rs/lzma", () => {
    throw new Error("no native binding");
  });
  try {
    await expect(collectBytes(decompress(inPieces(COMPRESSED.xz), "xz"))).rejects.toMatchObject({
      code: "unimplemented",
      message: expect.stringContaining("@napi-rs/lzma"),
    });
  } finally {
    vi.doUnmock("@napi-rs/lzma");
  }
});
