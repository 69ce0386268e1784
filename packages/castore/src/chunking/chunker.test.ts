import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { concatBytes, equalBytes } from "../bytes/byte-string.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import { CastoreError } from "../model/errors.ts";
import { Chunker, DEFAULT_AVERAGE_CHUNK_SIZE } from "./chunker.ts";

const KIB = 1024;

/** Bytes that look random and are the same every time. */
function noise(seed: string, size: number): Buffer {
  return createHash("shake256", { outputLength: size }).update(seed).digest();
}

/** Pushes `data` in pieces whose lengths are taken in turn from `lengths`. */
function chunksOf(
  data: Uint8Array,
  averageSize?: number,
  lengths: number[] = [data.length],
): Uint8Array[] {
  const chunker = new Chunker(averageSize);
  const chunks: Uint8Array[] = [];
  for (let at = 0, turn = 0; at < data.length; turn++) {
    const length = lengths[turn % lengths.length]!;
    chunks.push(...push(chunker, data.subarray(at, at + length)));
    at += length;
  }
  const last = chunker.finish();
  return last === undefined ? chunks : [...chunks, last];
}

/** The chunks that some bytes complete, which the chunker only lends. */
function push(chunker: Chunker, data: Uint8Array): Uint8Array[] {
  return Array.from(chunker.push(data), (chunk) => new Uint8Array(chunk));
}

function sizesOf(...args: Parameters<typeof chunksOf>): number[] {
  return chunksOf(...args).map(({ length }) => length);
}

function digestsOf(chunks: readonly Uint8Array[]): string[] {
  return chunks.map((chunk) => blake3Digest(chunk).hex);
}

describe("the chunks that tvix makes", () => {
  interface Content {
    readonly utf8?: string;
    readonly stream?: string;
    readonly fill?: number;
    readonly size: number;
  }
  interface Blob {
    readonly size: number;
    readonly chunks: readonly { readonly digest: string; readonly size: number }[];
  }
  const vectors = <T>(name: string): T =>
    JSON.parse(readFileSync(new URL(`../../../../vectors/${name}`, import.meta.url), "utf8"));
  const base64 = (data: Uint8Array): string =>
    Buffer.from(blake3Digest(data).bytes).toString("base64");

  function contentBytes({ utf8, stream, fill, size }: Content): Uint8Array {
    if (utf8 !== undefined) return Buffer.from(utf8);
    if (stream !== undefined) return streamBytes(stream, size);
    if (fill !== undefined) return Buffer.alloc(size, fill);
    throw new Error("unknown kind of contents");
  }

  /** The first `size` bytes of SHA-256(seed || 0) || SHA-256(seed || 1) || ..., numbers u64le. */
  function streamBytes(seed: string, size: number): Buffer {
    const bytes = Buffer.alloc(Math.ceil(size / 32) * 32);
    const counter = Buffer.alloc(8);
    for (let i = 0; i * 32 < size; i++) {
      counter.writeBigUInt64LE(BigInt(i));
      createHash("sha256")
        .update(seed)
        .update(counter)
        .digest()
        .copy(bytes, i * 32);
    }
    return bytes.subarray(0, size);
  }

  const specs = vectors<{ entries: { content?: Content }[] }[]>("tree-specs.json");
  const expected = new Map(
    vectors<{ blobs: Record<string, Blob> }[]>("tree-expected.json").flatMap(({ blobs }) =>
      Object.entries(blobs),
    ),
  );
  const contents = new Map<string, Uint8Array>();
  for (const { content } of specs.flatMap(({ entries }) => entries)) {
    if (content === undefined) continue;
    const data = contentBytes(content);
    contents.set(base64(data), data);
  }

  it("are those of every file in the golden trees", () => {
    expect([...contents.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [digest, data] of contents) {
      const chunks = chunksOf(data).map((chunk) => ({
        digest: base64(chunk),
        size: chunk.length,
      }));
      // A blob that is not cut is listed without chunks.
      expect(chunks.length > 1 ? chunks : []).toEqual(expected.get(digest)?.chunks);
    }
  });

  it.each([
    ["one byte less than a window", [32 * KIB - 1]],
    ["64 KiB", [64 * KIB]],
    ["odd and even lengths", [3, 65_537, 128 * KIB, 1, 999_999, 2]],
  ])("do not depend on how the bytes are divided: %s", (_name, lengths) => {
    for (const [digest, { chunks, size }] of expected) {
      if (chunks.length === 0) continue;
      const found = sizesOf(contents.get(digest)!, undefined, lengths);
      expect(found).toEqual(chunks.map((chunk) => chunk.size));
      expect(found.reduce((sum, length) => sum + length)).toBe(size);
    }
  });
});

/**
 * FastCDC as its definition reads, a byte at a time. Of hash, gear and masks the lowest 48 bits, as
 * no mask has a higher one: that much fits a number.
 */
function plainSizes(data: Uint8Array, average: number, below: number, above: number): number[] {
  const gear = Array.from({ length: 256 }, (_, byte) =>
    createHash("md5").update(Buffer.alloc(64, byte)).digest().readUIntBE(2, 6),
  );
  const sizes: number[] = [];
  for (let start = 0; start < data.length; ) {
    const end = Math.min(data.length - start, average * 2);
    let hash = 0;
    let size = end;
    for (let at = average / 2; at < end - (end % 2); at++) {
      hash = (hash * 2 + gear[data[start + at]!]!) % 2 ** 48;
      const mask = at < average ? below : above;
      const high = (hash / 2 ** 24) & (mask / 2 ** 24);
      if (high === 0 && ((hash % 2 ** 24) & (mask % 2 ** 24)) === 0) {
        size = at;
        break;
      }
    }
    sizes.push(size);
    start += size;
  }
  return sizes;
}

describe("other averages", () => {
  it.each([
    [16 * KIB, 0x0000d90f03530000, 0x0000d90303530000],
    [32 * KIB, 0x0000d90303537000, 0x0000d90313530000],
    [64 * KIB, 0x0000d90703537000, 0x0000d90f03530000],
    [128 * KIB, 0x0000d90707537000, 0x0000d90303537000],
    [512 * KIB, 0x0000d91747537000, 0x0000d90707537000],
    [1024 * KIB, 0x0000d91767537000, 0x0000d91707537000],
    [2048 * KIB, 0x0000d93767537000, 0x0000d91747537000],
    [4096 * KIB, 0x0000d93777537000, 0x0000d91767537000],
  ])("cut by the masks published for them: %d bytes", (average, below, above) => {
    const data = noise(`average ${average}`, average * 4 + 1);
    const sizes = sizesOf(data, average);
    expect(sizes).toEqual(plainSizes(data, average, below, above));
    expect(sizes.length).toBeGreaterThan(1);
  });

  it("cut alike for every division of the bytes", () => {
    const data = noise("divisions", 300_001);
    const whole = sizesOf(data, 16 * KIB);
    for (const lengths of [[1], [7], [16 * KIB + 1, 1], [8 * KIB - 1, 2, 5], [99_999]]) {
      expect(sizesOf(data, 16 * KIB, lengths)).toEqual(whole);
    }
  });

  it.each([0, -1, 8 * KIB, 8192 * KIB, 100_000, 16_384.5, Number.NaN, Number.POSITIVE_INFINITY])(
    "are refused unless a power of two within the bounds: %d",
    (average) => {
      expect(() => new Chunker(average)).toThrow(
        new CastoreError(
          "invalid_argument",
          `Cannot cut into chunks of ${average} bytes on average: expected a power of two from ` +
            "16384 to 4194304",
        ),
      );
    },
  );
});

describe("Chunker", () => {
  const average = 16 * KIB;

  it("finds the first cut of what it is shown, and adds nothing of that", () => {
    const data = noise("first cut", 2048 * KIB);
    const chunker = new Chunker();
    let at = 0;
    for (const chunk of push(new Chunker(), data)) {
      expect(chunker.firstCut(data.subarray(at))).toBe(chunk.length);
      at += chunk.length;
    }
    expect(chunker.firstCut(data.subarray(at))).toBeUndefined();
    const shared = new Uint8Array(new SharedArrayBuffer(data.length));
    shared.set(data);
    expect(chunker.firstCut(shared)).toBe(push(chunker, data)[0]!.length);
  });

  it("cuts nothing from nothing", () => {
    const chunker = new Chunker();
    expect(push(chunker, new Uint8Array(0))).toEqual([]);
    expect(chunker.finish()).toBeUndefined();
  });

  it("leaves less than the minimum whole", () => {
    expect(sizesOf(noise("short", DEFAULT_AVERAGE_CHUNK_SIZE / 2))).toEqual([128 * KIB]);
  });

  it("cuts at the maximum where nothing else matches", () => {
    expect(sizesOf(new Uint8Array(average * 5), average)).toEqual([
      average * 2,
      average * 2,
      average,
    ]);
  });

  it("gives a chunk of the maximum as soon as it is full", () => {
    const chunker = new Chunker(average);
    expect(push(chunker, new Uint8Array(average * 2 - 1))).toEqual([]);
    expect(push(chunker, new Uint8Array(1)).map(({ length }) => length)).toEqual([average * 2]);
    expect(chunker.finish()).toBeUndefined();
  });

  it("does not examine an odd last byte", () => {
    // The first cut stands before an even byte: as the last of all that byte has no partner.
    const data = noise("pairs", 2_000_000);
    let start = 0;
    const cut = sizesOf(data, average).find((size, i, all) => {
      start = all.slice(0, i).reduce((sum, length) => sum + length, 0);
      return size % 2 === 0 && size < average * 2;
    })!;
    const rest = data.subarray(start);
    expect(sizesOf(rest.subarray(0, cut + 1), average)).toEqual([cut + 1]);
    expect(sizesOf(rest.subarray(0, cut + 2), average)).toEqual([cut, 2]);
    // Pushed one by one, the byte waits for its partner, then begins the next chunk.
    expect(sizesOf(rest.subarray(0, cut + 2), average, [cut + 1, 1])).toEqual([cut, 2]);
  });

  it("gives chunks that make up the bytes", () => {
    const data = noise("parts", 200_003);
    for (const lengths of [[data.length], [50_001]]) {
      expect(equalBytes(concatBytes(chunksOf(data, average, lengths)), data)).toBe(true);
    }
  });

  it("keeps nothing of what it was given", () => {
    const data = noise("reused", 150_000);
    const expected = chunksOf(data, average);
    const chunker = new Chunker(average);
    const buffer = new Uint8Array(5_000);
    const chunks: Uint8Array[] = [];
    for (let at = 0; at < data.length; at += buffer.length) {
      buffer.set(data.subarray(at, at + buffer.length));
      chunks.push(...push(chunker, buffer));
      buffer.fill(0);
    }
    const last = chunker.finish();
    if (last !== undefined) chunks.push(last);
    expect(digestsOf(chunks)).toEqual(digestsOf(expected));
  });

  it("works beside others", () => {
    const data = noise("beside", 150_000);
    const reversed = data.toReversed();
    const chunkers = [new Chunker(average), new Chunker(average)];
    const chunks: Uint8Array[][] = [[], []];
    for (let at = 0; at < data.length; at += 1_001) {
      chunks[0]!.push(...push(chunkers[0]!, data.subarray(at, at + 1_001)));
      chunks[1]!.push(...push(chunkers[1]!, reversed.subarray(at, at + 1_001)));
    }
    chunks.forEach((list, i) => {
      list.push(chunkers[i]!.finish()!);
    });
    expect(digestsOf(chunks[0]!)).toEqual(digestsOf(chunksOf(data, average)));
    expect(digestsOf(chunks[1]!)).toEqual(digestsOf(chunksOf(reversed, average)));
  });
});

describe("the chunks of any bytes", () => {
  const average = 16 * KIB;
  const runs = { seed: 1, numRuns: 60 };

  /** Stretches of noise, of one byte, and of a pattern, as long as some chunks. */
  const someStretches = fc.array(
    fc.record({
      kind: fc.constantFrom("noise", "fill", "pattern"),
      seed: fc.nat(255),
      size: fc.nat(3 * average),
    }),
    { maxLength: 6 },
  );
  // Not made by `map`: what is shown of a failure is then short.
  type Stretches = typeof someStretches extends fc.Arbitrary<infer T> ? T : never;
  function bytesOf(stretches: Stretches): Buffer {
    const parts = stretches.map(({ kind, seed, size }) => {
      if (kind === "fill") return Buffer.alloc(size, seed);
      if (kind === "noise") return noise(`${seed}`, size);
      return Buffer.alloc(size, noise(`${seed}`, 100 + seed));
    });
    return Buffer.concat(parts);
  }

  it("make up the bytes, and are as long as they may be", () => {
    fc.assert(
      fc.property(someStretches, (stretches) => {
        const data = bytesOf(stretches);
        const chunks = chunksOf(data, average);
        expect(equalBytes(Buffer.concat(chunks), data)).toBe(true);
        for (const { length } of chunks) expect(length).toBeLessThanOrEqual(2 * average);
        for (const { length } of chunks.slice(0, -1)) {
          expect(length).toBeGreaterThanOrEqual(average / 2);
        }
      }),
      runs,
    );
  });

  it("are the same however the bytes are divided", () => {
    const lengths = fc.array(fc.integer({ min: 1, max: 3 * average }), {
      minLength: 1,
      maxLength: 8,
    });
    fc.assert(
      fc.property(someStretches, lengths, (stretches, lengths) => {
        const data = bytesOf(stretches);
        expect(sizesOf(data, average, lengths)).toEqual(sizesOf(data, average));
      }),
      runs,
    );
  });

  it("are the same behind a cut without what comes before it", () => {
    fc.assert(
      fc.property(someStretches, fc.nat(), (stretches, choice) => {
        const data = bytesOf(stretches);
        const sizes = sizesOf(data, average);
        const from = choice % (sizes.length + 1);
        const start = sizes.slice(0, from).reduce((sum, size) => sum + size, 0);
        expect(sizesOf(data.subarray(start), average)).toEqual(sizes.slice(from));
      }),
      runs,
    );
  });

  it("are the same from where a cut is the same, whatever comes before", () => {
    const cutsOf = (data: Uint8Array) => {
      const cuts = [0];
      for (const size of sizesOf(data, average)) cuts.push(cuts.at(-1)! + size);
      return cuts;
    };
    let met = 0;
    fc.assert(
      fc.property(someStretches, someStretches, (before, stretches) => {
        const [added, data] = [bytesOf(before), bytesOf(stretches)];
        const cuts = cutsOf(data);
        const shifted = cutsOf(Buffer.concat([added, data])).map((cut) => cut - added.length);
        const first = shifted.find((cut) => cuts.includes(cut))!; // the end, if no other
        if (first < data.length && added.length > 0) met += 1;
        expect(shifted.filter((cut) => cut >= first)).toEqual(cuts.filter((cut) => cut >= first));
      }),
      runs,
    );
    expect(met).toBeGreaterThan(runs.numRuns / 4);
  });

  const averages = Array.from({ length: 9 }, (_, i) => 16 * KIB * 2 ** i);
  it.each(averages)("are right at every bound of an average of %d", (average) => {
    const bounds = [0, average / 2, average, average * 2, average * 2.5];
    const fill = Buffer.alloc(average * 2.5 + 2);
    const random = noise(`bounds ${average}`, fill.length);
    // The first cut in noise is another bound. It is seen when a pair of bytes follows.
    const [cut] = sizesOf(random, average);
    for (const size of [...bounds, cut!].flatMap((at) => [at - 2, at - 1, at, at + 1, at + 2])) {
      if (size < 0) continue;
      const full = Math.floor(size / (2 * average));
      const last = size % (2 * average);
      const expected = [...Array(full).fill(2 * average), ...(last > 0 ? [last] : [])];
      expect(sizesOf(fill.subarray(0, size), average)).toEqual(expected);
      const chunks = chunksOf(random.subarray(0, size), average);
      expect(equalBytes(Buffer.concat(chunks), random.subarray(0, size))).toBe(true);
      if (size >= cut! + 2) expect(chunks[0]!.length).toBe(cut);
      if (size < cut!) expect(chunks.length).toBeLessThanOrEqual(1);
      expect(sizesOf(random.subarray(0, size), average, [average / 2 - 1, 1, 1])).toEqual(
        chunks.map(({ length }) => length),
      );
    }
  });
});
