import { type BlobService, blake3Digest, equalBytes, putBlob } from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { chunksOf, EMPTY, expectStored, KIB, MANY_CHUNKS } from "./blob-support.ts";
import { seededBytes } from "./trees.ts";

const ONE_CHUNK: Uint8Array = seededBytes("reader", 5000);

/** Offsets at and beside the borders of the chunks of a blob, and of the blob. */
function borders(sizes: readonly number[]): number[] {
  const offsets = new Set<number>([0, 1]);
  let border = 0;
  for (const size of sizes) {
    border += size;
    for (const offset of [border - 1, border, border + 1]) offsets.add(offset);
  }
  return [...offsets];
}

/** That blobs can be opened for random access, and looked up without being read. */
export function blobReaderTests(service: () => BlobService): void {
  describe("opened for random access", () => {
    it.each([
      ["no bytes", EMPTY],
      ["one byte", Uint8Array.of(42)],
      ["one chunk", ONE_CHUNK],
      ["many chunks", MANY_CHUNKS],
      ["chunks that are all the same", new Uint8Array(KIB * KIB + 7)],
    ])("reads a blob of %s at every border of its chunks", async (_, contents) => {
      const digest = await putBlob(service(), contents.slice());
      await using reader = (await service().open(digest))!;
      expect(reader.digest.equals(digest)).toBe(true);
      expect(reader.size).toBe(contents.length);
      const sizes = Array.from(reader.chunks, ({ size }) => size);
      expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(contents.length);
      expect(sizes.length > 0).toBe(contents.length > 0);
      for (const offset of borders(sizes)) {
        for (const length of [1, 2, 600 * KIB]) {
          const found = await reader.read(offset, length);
          expect(equalBytes(found, contents.subarray(offset, offset + length))).toBe(true);
        }
      }
      expect((await reader.read(0, 0)).length).toBe(0);
      const whole = await reader.read(0, Number.MAX_SAFE_INTEGER);
      expect(equalBytes(whole, contents)).toBe(true);
      const { MAX_SAFE_INTEGER } = Number;
      expect((await reader.read(MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)).length).toBe(0);
    });

    it("opens a chunk of a blob as a blob that is not cut", async () => {
      const digest = await putBlob(service(), MANY_CHUNKS.slice());
      const [first] = (await chunksOf(service(), digest))!;
      await using reader = (await service().open(first!.digest))!;
      expect([...reader.chunks]).toEqual([first]);
      const found = await reader.read(0, first!.size);
      expect(equalBytes(found, MANY_CHUNKS.subarray(0, first!.size))).toBe(true);
    });

    it("opens nothing for a blob that is absent", async () => {
      expect(await service().open(blake3Digest(Buffer.from("never")))).toBeUndefined();
      expect(await service().open(blake3Digest(EMPTY))).toBeUndefined();
    });

    it("takes many reads at the same time", async () => {
      await using reader = (await service().open(await putBlob(service(), MANY_CHUNKS.slice())))!;
      const offsets = Array.from({ length: 24 }, (_, i) => (i * 7_919_131) % MANY_CHUNKS.length);
      const found = await Promise.all(offsets.map((offset) => reader.read(offset, 300 * KIB)));
      for (const [i, offset] of offsets.entries()) {
        const expected = MANY_CHUNKS.subarray(offset, offset + 300 * KIB);
        expect(equalBytes(found[i]!, expected)).toBe(true);
      }
    });

    it("gives bytes that are the caller's", async () => {
      await using reader = (await service().open(await putBlob(service(), MANY_CHUNKS.slice())))!;
      for (const length of [100, 100, MANY_CHUNKS.length, 100]) {
        const found = await reader.read(0, length);
        expect(equalBytes(found, MANY_CHUNKS.subarray(0, length))).toBe(true);
        found.fill(0);
      }
      await expectStored(service(), MANY_CHUNKS);
    });

    it("reads on when another reader of the same blob is disposed of", async () => {
      const digest = await putBlob(service(), MANY_CHUNKS.slice());
      await using reader = (await service().open(digest))!;
      await (await service().open(digest))![Symbol.asyncDispose]();
      const found = await reader.read(1_000_000, 10);
      expect(equalBytes(found, MANY_CHUNKS.subarray(1_000_000, 1_000_010))).toBe(true);
    });

    it("reads nothing once it is disposed of", async () => {
      const reader = (await service().open(await putBlob(service(), ONE_CHUNK.slice())))!;
      await reader[Symbol.asyncDispose]();
      await reader[Symbol.asyncDispose]();
      await expect(reader.read(0, 1)).rejects.toMatchObject({ code: "invalid_argument" });
    });

    it("refuses to read where offset or length is no natural number", async () => {
      await using reader = (await service().open(await putBlob(service(), ONE_CHUNK.slice())))!;
      for (const bad of [-1, 0.5, Number.NaN]) {
        const refused = { code: "invalid_argument" };
        await expect(reader.read(bad, 1)).rejects.toMatchObject(refused);
        await expect(reader.read(0, bad)).rejects.toMatchObject(refused);
      }
    });

    it("ends a read that is cancelled, with the reason, and reads again", async () => {
      await using reader = (await service().open(await putBlob(service(), MANY_CHUNKS.slice())))!;
      const reason = new Error("enough");
      const before = { signal: AbortSignal.abort(reason) };
      await expect(reader.read(0, 10, before)).rejects.toBe(reason);
      const controller = new AbortController();
      const reading = reader.read(0, MANY_CHUNKS.length, { signal: controller.signal });
      controller.abort(reason);
      await expect(reading).rejects.toBe(reason);
      expect(equalBytes(await reader.read(0, 10), MANY_CHUNKS.subarray(0, 10))).toBe(true);
    });

    it("is not opened when it is cancelled before", async () => {
      const digest = await putBlob(service(), ONE_CHUNK.slice());
      const reason = new Error("enough");
      const options = { signal: AbortSignal.abort(reason) };
      await expect(service().open(digest, options)).rejects.toBe(reason);
      await expect(service().statMany([digest], options)).rejects.toBe(reason);
    });
  });

  describe("looked up without being read", () => {
    it("tells length and number of chunks of each of many blobs and chunks, in order", async () => {
      const blobs = [EMPTY, ONE_CHUNK, MANY_CHUNKS];
      const digests = await service().putMany(blobs);
      const chunks = (await chunksOf(service(), digests[2]!))!;
      const absent = blake3Digest(Buffer.from("never"));
      const asked = [absent, ...digests, chunks[0]!.digest, absent, digests[1]!];
      expect(await service().statMany(asked)).toEqual([
        undefined,
        { size: 0, chunks: 0 },
        { size: ONE_CHUNK.length, chunks: 1 },
        { size: MANY_CHUNKS.length, chunks: chunks.length },
        { size: chunks[0]!.size, chunks: 1 },
        undefined,
        { size: ONE_CHUNK.length, chunks: 1 },
      ]);
      expect(await service().statMany([])).toEqual([]);
    });
  });
}
