import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { concatBytes } from "../bytes/byte-string.ts";
import { B3Digest } from "../model/digest.ts";
import { MAX_CHUNK_BYTES } from "../model/limits.ts";
import { ChunkList, ChunkListBuilder, type ChunkMeta } from "./chunk-list.ts";

const chunk: fc.Arbitrary<ChunkMeta> = fc.record({
  digest: fc.uint8Array({ minLength: 32, maxLength: 32 }).map(B3Digest.fromBytes),
  size: fc.oneof(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: MAX_CHUNK_BYTES })),
});

/** Up to some hundred chunks: several checkpoints. */
const chunks: fc.Arbitrary<ChunkMeta[]> = fc.array(chunk, { maxLength: 300, size: "max" });

/** The packed form, written down once more. */
function pack(chunks: readonly ChunkMeta[]): Uint8Array {
  return concatBytes([
    new Uint8Array(0),
    ...chunks.map(({ digest, size }) => {
      const entry = Buffer.alloc(36);
      entry.set(digest.bytes);
      entry.writeUInt32LE(size, 32);
      return entry;
    }),
  ]);
}

const sizesOf = (chunks: readonly ChunkMeta[]) => chunks.map(({ size }) => size);
const sum = (sizes: readonly number[]) => sizes.reduce((sum, size) => sum + size, 0);

/** Every way to make a list of chunks. */
const WAYS: readonly (readonly [string, (chunks: readonly ChunkMeta[]) => ChunkList])[] = [
  ["of packed bytes", (chunks) => ChunkList.fromBytes(pack(chunks))],
  [
    "of packed bytes that stand anywhere",
    (chunks) => ChunkList.fromBytes(concatBytes([Uint8Array.of(1), pack(chunks)]).subarray(1)),
  ],
  ["of chunks", (chunks) => ChunkList.of(chunks)],
  [
    "by adding packed pieces and chunks in turn",
    (chunks) => {
      const builder = new ChunkListBuilder();
      for (let at = 0; at < chunks.length; at += 50) {
        builder.append(pack(chunks.slice(at, at + 49)));
        for (const { digest, size } of chunks.slice(at + 49, at + 50)) builder.push(digest, size);
        expect(builder.length).toBe(Math.min(at + 50, chunks.length));
      }
      return builder.finish();
    },
  ],
];

describe.each(WAYS)("a list made %s", (_, make) => {
  it("is what an array of the chunks is", () => {
    fc.assert(
      fc.property(chunks, (chunks) => {
        const list = make(chunks);
        const sizes = sizesOf(chunks);
        expect(list.length).toBe(chunks.length);
        expect(list.size).toBe(sum(sizes));
        expect(Buffer.compare(list.bytes, pack(chunks))).toBe(0);
        expect(Array.from(list, ({ digest, size }) => [digest.hex, size])).toEqual(
          chunks.map(({ digest, size }) => [digest.hex, size]),
        );
        let offset = 0;
        for (const [i, { digest, size }] of chunks.entries()) {
          expect(list.digestAt(i).equals(digest)).toBe(true);
          expect(list.sizeAt(i)).toBe(size);
          expect(list.offsetAt(i)).toBe(offset);
          expect(list.indexAt(offset)).toBe(i);
          expect(list.indexAt(offset + size - 1)).toBe(i);
          expect(list.indexAt(offset + (size >> 1))).toBe(i);
          offset += size;
        }
      }),
      { numRuns: 60, seed: 15 },
    );
  });

  it.each([-1, 3, 0.5, Number.NaN])("refuses the index %d", (index) => {
    const list = make(fc.sample(chunk, { numRuns: 3, seed: 1 }));
    for (const call of ["at", "digestAt", "sizeAt", "offsetAt"] as const) {
      expect(() => list[call](index)).toThrow(RangeError);
    }
  });

  it("refuses an offset outside of the blob", () => {
    const list = make(fc.sample(chunk, { numRuns: 3, seed: 1 }));
    for (const offset of [-1, list.size, Number.NaN]) {
      expect(() => list.indexAt(offset)).toThrow(RangeError);
    }
    expect(() => make([]).indexAt(0)).toThrow(RangeError);
  });
});

describe("a list of chunks", () => {
  const [one] = fc.sample(chunk, { numRuns: 1, seed: 2 }) as [ChunkMeta];
  const dataLoss = expect.objectContaining({ code: "data_loss" });

  it.each([0, MAX_CHUNK_BYTES + 1, 2 ** 32 - 1])("refuses a chunk of %d bytes", (size) => {
    const wrong = { digest: one.digest, size };
    expect(() => ChunkList.fromBytes(pack([one, wrong]))).toThrow(dataLoss);
    expect(() => ChunkList.of([one, wrong])).toThrow(dataLoss);
    expect(() => new ChunkListBuilder().append(pack([one, wrong]))).toThrow(dataLoss);
  });

  it.each([1, 35, 37, 71])("refuses %d bytes, which are no entries", (length) => {
    expect(() => ChunkList.fromBytes(new Uint8Array(length).fill(1))).toThrow(dataLoss);
  });

  it("keeps nothing of a digest that is added", () => {
    const digest = B3Digest.fromBytes(new Uint8Array(32).fill(7));
    const list = ChunkList.of([{ digest, size: 1 }]);
    digest.bytes.fill(0);
    expect(list.digestAt(0).bytes).toEqual(new Uint8Array(32).fill(7));
  });

  it("is divided into runs that keep to both limits unless one chunk is longer", () => {
    const limits = fc.tuple(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 2 ** 24 }));
    fc.assert(
      fc.property(chunks, limits, (chunks, [maxChunks, maxBytes]) => {
        const batches = [...ChunkList.of(chunks).batches(maxChunks, maxBytes)];
        expect(sizesOf(batches.flat())).toEqual(sizesOf(chunks));
        for (const [i, batch] of batches.entries()) {
          expect(batch.length).toBeGreaterThan(0);
          expect(batch.length).toBeLessThanOrEqual(maxChunks);
          if (batch.length > 1) expect(sum(sizesOf(batch))).toBeLessThanOrEqual(maxBytes);
          const next = batches[i + 1]?.[0];
          const isFull = batch.length === maxChunks || next === undefined;
          if (!isFull) expect(sum(sizesOf(batch)) + next.size).toBeGreaterThan(maxBytes);
        }
      }),
    );
  });

  it("finds offsets beyond four gigabytes", () => {
    const { digest } = one;
    const list = ChunkList.of(Array(1000).fill({ digest, size: MAX_CHUNK_BYTES }));
    expect(list.size).toBe(1000 * MAX_CHUNK_BYTES);
    for (const index of [0, 511, 512, 513, 999]) {
      expect(list.offsetAt(index)).toBe(index * MAX_CHUNK_BYTES);
      expect(list.indexAt(index * MAX_CHUNK_BYTES)).toBe(index);
    }
  });

  it("equals one of the same chunks", () => {
    expect(ChunkList.of([one]).equals(ChunkList.fromBytes(pack([one])))).toBe(true);
    expect(ChunkList.of([one]).equals(ChunkList.of([one, one]))).toBe(false);
  });
});
