import {
  type B3Digest,
  BlobPlaces,
  type BlobService,
  blake3Digest,
  equalBytes,
  putBlob,
  readManyInto,
} from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { chunksOf, EMPTY, expectAbsent, expectStored, KIB, MANY_CHUNKS } from "./blob-support.ts";
import { seededBytes } from "./trees.ts";

/** Blobs as a batch meets them: empty, of one chunk, of several, the same twice. */
const BATCH: readonly Uint8Array[] = [
  EMPTY,
  seededBytes("batch", 300),
  MANY_CHUNKS.subarray(0, 128 * KIB),
  MANY_CHUNKS.subarray(0, 900 * KIB),
  seededBytes("batch", 300),
  ...Array.from({ length: 80 }, (_, i) => seededBytes(`batch ${i}`, i * 97)),
];

const UNKNOWN = blake3Digest(Buffer.from("not in any batch"));

/** The blob of some contents as `readMany` asks for it. */
function wanted(contents: Uint8Array): { digest: B3Digest; size: number } {
  return { digest: blake3Digest(contents), size: contents.length };
}

/** That batches do what as many single calls do. */
export function blobBatchTests(service: () => BlobService): void {
  describe("in batches", () => {
    it("stores blobs, gives their digests in order, and reads them back", async () => {
      const digests = await service().putMany(BATCH);
      expect(digests.map(({ hex }) => hex)).toEqual(BATCH.map((data) => blake3Digest(data).hex));
      for (const blob of BATCH.slice(0, 8)) await expectStored(service(), blob);
      const found = await service().readMany(BATCH.map(wanted));
      expect(found.length).toBe(BATCH.length);
      found.forEach((contents, i) => {
        expect(contents !== undefined && equalBytes(contents, BATCH[i]!)).toBe(true);
      });
    });

    it("stores blobs of which some are there", async () => {
      for (const blob of BATCH.slice(1, 4)) await putBlob(service(), blob);
      await service().putMany(BATCH);
      for (const blob of BATCH.slice(0, 8)) await expectStored(service(), blob);
    });

    it("tells which blobs and chunks are there", async () => {
      const [digest] = await service().putMany([MANY_CHUNKS]);
      const chunks = (await chunksOf(service(), digest!))!;
      const digests = [UNKNOWN, digest!, ...chunks.map(({ digest }) => digest), UNKNOWN];
      const expected = [false, true, ...chunks.map(() => true), false];
      expect(await service().hasMany(digests)).toEqual(expected);
    });

    it("gives nothing for a blob that is absent or of another length", async () => {
      const [small, large] = [BATCH[1]!, BATCH[3]!];
      await service().putMany([small, large]);
      const found = await service().readMany([
        { digest: UNKNOWN, size: 300 },
        { digest: blake3Digest(small), size: 299 },
        { digest: blake3Digest(large), size: large.length + 1 },
        wanted(small),
        { digest: blake3Digest(large), size: 0 },
      ]);
      expect(found.map((contents) => contents?.length)).toEqual([
        undefined,
        undefined,
        undefined,
        300,
        undefined,
      ]);
    });

    it("reads blobs to their places in a buffer, and touches nothing between them", async () => {
      await service().putMany(BATCH);
      const places = new BlobPlaces();
      const expected = Buffer.alloc(
        BATCH.reduce((sum, { length }) => sum + length + 3, 500),
        7,
      );
      let at = 3;
      const add = (digest: B3Digest, length: number) => {
        places.add(digest, at, length);
        at += length + 3;
      };
      for (const [i, contents] of BATCH.entries()) {
        if (i === 1) add(UNKNOWN, 100);
        if (i === 2) add(blake3Digest(BATCH[1]!), BATCH[1]!.length - 1);
        expected.set(contents, at);
        add(blake3Digest(contents), contents.length);
      }
      const target = new Uint8Array(expected.length).fill(7);
      const { bytes, unread } = await readManyInto(service(), target, places);
      expect([...unread].sort((a, b) => a - b)).toEqual([1, 3]);
      for (const i of unread) places.placeIn(bytes, i).fill(7); // may have been written to
      expect(equalBytes(bytes, expected)).toBe(true);
      const none = await readManyInto(service(), new Uint8Array(5), new BlobPlaces());
      expect([none.bytes.length, none.unread.length]).toEqual([5, 0]);
    });

    it("takes a batch of nothing", async () => {
      expect(await service().putMany([])).toEqual([]);
      expect(await service().readMany([])).toEqual([]);
      expect(await service().hasMany([])).toEqual([]);
    });

    it("takes the same batch from many at the same time", async () => {
      await Promise.all(Array.from({ length: 4 }, () => service().putMany(BATCH)));
      for (const blob of BATCH.slice(0, 8)) await expectStored(service(), blob);
    });

    it("keeps nothing of the bytes that it was lent", async () => {
      const lent = BATCH.map((blob) => new Uint8Array(blob));
      await service().putMany(lent);
      for (const bytes of lent) bytes.fill(0);
      const found = await service().readMany(BATCH.map(wanted));
      expect(found.every((contents, i) => contents && equalBytes(contents, BATCH[i]!))).toBe(true);
    });

    it("gives the same again when a reader has changed what it got", async () => {
      await service().putMany(BATCH);
      for (const contents of await service().readMany(BATCH.map(wanted))) contents?.fill(0);
      for (const blob of BATCH.slice(0, 8)) await expectStored(service(), blob);
    });

    it("does nothing when it is cancelled before", async () => {
      const reason = new Error("enough");
      const options = { signal: AbortSignal.abort(reason) };
      await expect(service().putMany(BATCH, options)).rejects.toBe(reason);
      await expect(service().readMany(BATCH.map(wanted), options)).rejects.toBe(reason);
      const places = new BlobPlaces();
      places.add(UNKNOWN, 0, 1);
      const reading = readManyInto(service(), new Uint8Array(1), places, options);
      await expect(reading).rejects.toBe(reason);
      await expect(service().hasMany([UNKNOWN], options)).rejects.toBe(reason);
      await expectAbsent(service(), blake3Digest(BATCH[1]!));
    });
  });
}
