import { brotliCompressSync, constants, gzipSync, zstdCompressSync } from "node:zlib";
import { xz } from "@napi-rs/lzma";
import { describe, expect, it, vi } from "vitest";
import { collectBytes } from "../bytes/byte-string.ts";
import { bzip2Memory, bzip2Start, decodeBzip2 } from "./bzip2-decoder.ts";
import {
  COMPRESSIONS,
  type Compression,
  compressionOf,
  decompress,
  detectCompression,
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

describe("decompress of what expands a lot", () => {
  /** 400 MB of zeros, which `bzip2 -9` wrote in 306 bytes. */
  const BOMB =
    "QlpoOTFBWSZTWQ4J4t8BX45AAMAAAAggADCATUZCoCWpCoCXMUFZJlNZDgni3wFfjkAAwAAACCAAMIBNRkKgJakKgJ" +
    "cxQVkmU1kOCeLfAV+OQADAAAAIIAAwgE1GQqAlqQqAlzFBWSZTWQ4J4t8BX45AAMAAAAggADCATUZCoCWpCoCXMUFZ" +
    "JlNZDgni3wFfjkAAwAAACCAAMIBNRkKgJakKgJcxQVkmU1kOCeLfAV+OQADAAAAIIAAwgE1GQqAlqQqAlzFBWSZTWQ" +
    "4J4t8BX45AAMAAAAggADCATUZCoCWpCoCXMUFZJlNZDgni3wFfjkAAwAAACCAAMIBNRkKgJakKgJcxQVkmU1kiuZEF" +
    "APtFwQDAAAAAgAggADDMCappiVIg2qipEHi7kinChIbAXcMg";
  const zeros = new Uint8Array(100_000_000);
  const bombs: readonly (readonly [Compression, Buffer])[] = [
    ["br", brotliCompressSync(zeros, { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } })],
    ["bzip2", Buffer.from(BOMB, "base64")],
    ["gzip", gzipSync(zeros, { level: 1 })],
    ["zstd", zstdCompressSync(zeros)],
  ];

  it.each(bombs)("gives %s in pieces, no sooner than they are read", async (kind, compressed) => {
    const before = process.memoryUsage().arrayBuffers;
    let [total, most] = [0, 0];
    for await (const piece of decompress(inPieces(compressed, 100), kind)) {
      most = Math.max(most, piece.length);
      total += piece.length;
      if (total > 30_000_000) break;
      // Time for whatever would run ahead.
      if (total < 2_000_000) await new Promise((resolve) => setTimeout(resolve, 1));
      if (total < 2_000_000) {
        expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(20_000_000);
      }
    }
    expect(total).toBeGreaterThan(30_000_000);
    expect(most).toBeLessThanOrEqual(256 * 1024);
  });

  it("leaves the event loop alone while bzip2 is decompressed", async () => {
    let [turns, total] = [0, 0];
    const timer = setInterval(() => {
      turns += 1;
    }, 0);
    for await (const piece of decompress(inPieces(Buffer.from(BOMB, "base64")), "bzip2")) {
      total += piece.length;
    }
    clearInterval(timer);
    expect(total).toBe(400_000_000);
    expect(turns).toBeGreaterThan(100); // of the pieces, there are more than 1,500
  });

  it("gives xz in pieces that says it holds much, and refuses more than it says", async () => {
    const bomb = Buffer.from(xz.compressSync(zeros.subarray(0, 4_000_000)));
    expect(bomb.length).toBeLessThan(10_000);
    let [total, most] = [0, 0];
    for await (const piece of decompress(inPieces(bomb), "xz")) {
      most = Math.max(most, piece.length);
      total += piece.length;
    }
    expect(total).toBe(4_000_000);
    expect(most).toBeLessThanOrEqual(256 * 1024);
    // Behind the header of the stream and that of the block: a chunk of LZMA2 of 2 MiB, which says 512 bytes now.
    const chunk = 12 + 4 * (bomb[12]! + 1);
    const lying = Buffer.from(bomb);
    lying.set([lying[chunk]! & 0xe0, 1, 0xff], chunk);
    await expect(collectBytes(decompress(inPieces(lying), "xz"))).rejects.toThrow(dataLoss());
  });

  it.each(bombs)("stops %s when it is cancelled, though all of it was read", async (kind, data) => {
    const reason = new Error("enough");
    const controller = new AbortController();
    const pieces = decompress(inPieces(data, data.length), kind, { signal: controller.signal });
    expect((await pieces.next()).done).toBe(false);
    const next = pieces.next();
    controller.abort(reason);
    const outcome = await next.catch((error) => error); // it may have been there already
    if (outcome !== reason) await expect(pieces.next()).rejects.toBe(reason);
  });
});

describe("decompress of what takes more memory than there is for it", () => {
  /** Five bytes in a frame with a window of 2 to the power of `exponent`, as RFC 8878 has it. */
  const frame = (exponent: number) =>
    Buffer.concat([
      Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, (exponent - 10) << 3, (5 << 3) | 1, 0, 0]),
      Buffer.from("hello"),
    ]);

  it("takes windows of zstd of up to 128 MiB", async () => {
    expect(String(await collectBytes(decompress(inPieces(frame(27)), "zstd")))).toBe(
      String(new Uint8Array(Buffer.from("hello"))),
    );
    for (const exponent of [28, 31]) {
      const name = '"a.tar.zst"';
      const pieces = decompress(inPieces(frame(exponent)), "zstd", { name });
      await expect(collectBytes(pieces)).rejects.toMatchObject({
        code: "resource_exhausted",
        message:
          'Cannot decompress "a.tar.zst" (zstd): expected a window of at most 128 MiB, found a larger one; ' +
          "compress it with --long=27 or less",
      });
    }
  });

  it("refuses dictionaries of xz of more than 128 MiB, in any block", async () => {
    // `hello`, by `xz --lzma2=dict=1536MiB`
    const large = Buffer.from(
      "/Td6WFoAAATm1rRGAgAhASUAAAA7eHtBAQAEaGVsbG8AAAAAsTe52+XaHpsAAR0FuC2Arx+2830BAAAAAARZWg==",
      "base64",
    );
    for (const data of [large, Buffer.concat([COMPRESSED.xz, Buffer.alloc(8), large])]) {
      for (const size of [1, 1000]) {
        const pieces = decompress(inPieces(data, size), "xz");
        await expect(collectBytes(pieces)).rejects.toMatchObject({
          code: "resource_exhausted",
          message:
            "Cannot decompress xz: expected a dictionary of at most 134217728 bytes, found 1610612736",
        });
      }
    }
  });
});

describe("decompress bzip2", () => {
  const compressed = COMPRESSED.bzip2;
  const read = (data: Uint8Array) => collectBytes(decompress(inPieces(data), "bzip2"));

  it("takes zeros behind it, also many, and refuses anything else", async () => {
    for (const count of [1, 511, 10_000_000]) {
      const found = await read(Buffer.concat([compressed, Buffer.alloc(count)]));
      expect(Buffer.compare(found, CONTENTS)).toBe(0);
    }
    for (const behind of ["garbage", "BZ", "\0garbage", "\0BZh9"]) {
      const data = Buffer.concat([compressed, Buffer.from(behind)]);
      await expect(read(data)).rejects.toThrow(dataLoss());
    }
  });

  it("says in words what is wrong", async () => {
    const reason = async (data: Uint8Array) => (await read(data).catch((error) => error)).message;
    const text = Buffer.from("no bzip2 at all");
    expect(await reason(text)).toBe(
      'Cannot decompress bzip2: expected "BZh" and a digit, found "no b"',
    );
    for (const length of [3, 5, 20, compressed.length - 1]) {
      expect(await reason(compressed.subarray(0, length))).toMatch(/breaks off|expected "BZh"/);
    }
    const wrong = Buffer.from(compressed);
    wrong[wrong.length - 3]! ^= 1;
    expect(await reason(wrong)).toBe(
      "Cannot decompress bzip2: the checksum of the stream is wrong",
    );
  });

  it("gives the contents or a fault, and ends, whatever bytes are changed", () => {
    const memory = bzip2Memory();
    const whole = (data: Uint8Array) => {
      new Uint8Array(memory.input).set(data);
      const parts: Buffer[] = [];
      for (let state = bzip2Start(); ; ) {
        const step = decodeBzip2({ memory, state, length: data.length, isLast: true });
        state = step.state;
        parts.push(Buffer.from(Buffer.from(memory.output, 0, step.written)));
        if (step.ended) return { contents: Buffer.concat(parts), fault: step.fault };
      }
    };
    const text = `${Array.from({ length: 60 }, (_, i) => `line ${i} of a small text that is compressed; `).join("")}${"a".repeat(300)}\n`;
    // By the command bzip2.
    const small = Buffer.from(
      "QlpoOTFBWSZTWVmXJP4AAwxZgIAQQCB/6C9n3EAACDABGiAyoz9VRP/1VT9U0ZAGmQYwAAAAAmqppJtT1DTT1DQa" +
        "eiY2oe9Dn/UN6GCNtcsvLz9OXrz9ttNdca6qrwVwqqKuVVyqoq4xjHrJbfqS28pLbv7a1rWsgBmWBuBiWAYDeWAG" +
        "TaWAAWwAAAAADbYA+JLaSU0d8Yv2h+UMZ0OlDrQ6UO1DnQ3oZUNqGlDKh1wRrQ0ocaG9DhQ3ocqHahwocaHhQ5UP" +
        "Gh3oZ1DOhn/i7kinChILMuSfwA==",
      "base64",
    );
    expect(whole(small)).toEqual({ contents: Buffer.from(text), fault: undefined });
    let seed = 1;
    const random = (limit: number) => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return Math.floor((seed / 2 ** 32) * limit);
    };
    const faults = new Set<string>();
    for (let i = 0; i < 2000; i++) {
      const damaged = Buffer.from(small);
      for (let changes = random(3); changes >= 0; changes--) {
        damaged[random(damaged.length)] = random(256);
      }
      const { contents, fault } = whole(damaged.subarray(0, 1 + random(2 * damaged.length)));
      if (fault === undefined) expect(String(contents) === text).toBe(true);
      else faults.add(fault.replace(/0x[0-9a-f]+|[0-9]+|".*"/g, "N"));
    }
    expect(faults.size).toBeGreaterThan(8);
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

describe("detectCompression", () => {
  it.each([1, 3, 1000])(
    "tells the format of a stream in pieces of %i bytes, and loses none",
    async (size) => {
      for (const [kind, bytes] of [
        ["xz", COMPRESSED.xz],
        [undefined, CONTENTS],
      ] as const) {
        const found = await detectCompression(inPieces(bytes, size));
        expect(found.compression).toBe(kind);
        expect(Buffer.compare(await collectBytes(found.stream), bytes)).toBe(0);
      }
    },
  );

  it("tells nothing of a stream that is shorter than a magic", async () => {
    const found = await detectCompression(inPieces(Buffer.from("BZ")));
    expect(found.compression).toBeUndefined();
    expect(Buffer.from(await collectBytes(found.stream)).toString()).toBe("BZ");
  });

  it("ends the stream with what it returns", async () => {
    let isEnded = false;
    const endless = async function* () {
      try {
        for (;;) yield CONTENTS;
      } finally {
        isEnded = true;
      }
    };
    const found = await detectCompression(endless());
    for await (const _ of found.stream) break;
    expect(isEnded).toBe(true);
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
