import {
  type B3Digest,
  type BlobService,
  blake3Digest,
  collectBytes,
  concatBytes,
  equalBytes,
  putBlob,
  verifiedRange,
} from "@tvix/castore";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { blobBatchTests } from "./blob-batches.ts";
import { blobFrameTests, blobListTests } from "./blob-lists.ts";
import { blobPutFramesTests } from "./blob-put-frames.ts";
import { blobReaderTests } from "./blob-readers.ts";
import { sharedBlobTests } from "./blob-sharing.ts";
import {
  chunksOf,
  EMPTY,
  expectAbsent,
  expectStored,
  KIB,
  LARGE,
  MANY_CHUNKS,
  putInPieces,
  readBack,
} from "./blob-support.ts";
import { blobWriterTests } from "./blob-writers.ts";
import { seededBytes } from "./trees.ts";

/** What a blob service can do beyond its contract. */
export interface BlobServiceCapabilities {
  /**
   * Whether `open` tells how blobs are cut, which is by FastCDC with an average of 256 KiB. Default:
   * false, any way to cut will do, or none.
   */
  readonly chunks?: boolean;

  /**
   * Whether whole chunks of a blob whose writer did not finish can be read by their own digests. Default:
   * false.
   */
  readonly keepsChunks?: boolean;

  /**
   * Whether bytes come as they are stored. Frames are not checked, so where bytes are damaged on their way they cannot be
   * tested. Default: true.
   */
  readonly reliable?: boolean;
}

/** What {@link blobServiceSuite} runs over. */
export interface BlobServiceSuiteOptions {
  /** Gives a fresh, empty service, which the suite disposes of. */
  create: () => Promise<BlobService>;
  /**
   * Gives two services on one fresh, empty store, as two processes would open it; the suite disposes of
   * the first before the second. Default: the store is never shared.
   */
  createPair?: () => Promise<readonly [BlobService, BlobService]>;
  /** Default: none. */
  capabilities?: BlobServiceCapabilities;
}

/** Contents at the edges of chunking, whose average is 256 KiB. */
const CONTENTS: readonly (readonly [string, Uint8Array])[] = [
  ["no bytes", EMPTY],
  ["one byte", Uint8Array.of(42)],
  ["the smallest chunk", MANY_CHUNKS.subarray(0, 128 * KIB)],
  ["a byte more than the smallest chunk", MANY_CHUNKS.subarray(0, 128 * KIB + 1)],
  ["the average chunk", MANY_CHUNKS.subarray(0, 256 * KIB)],
  ["the largest chunk", seededBytes("large", 512 * KIB)],
  ["a byte more than the largest chunk", new Uint8Array(512 * KIB + 1).fill(7)],
  ["many chunks", MANY_CHUNKS],
  ["chunks that are all the same", new Uint8Array(KIB * KIB + 7)],
];

/** Where the reference cuts, as in `tree-expected.json` of the project's vectors. */
const CUTS: readonly (readonly [string, Uint8Array, readonly number[]])[] = [
  ["one chunk", MANY_CHUNKS.subarray(0, 256 * KIB), [256 * KIB]],
  [
    "many chunks",
    LARGE,
    [287355, 210452, 159230, 163496, 291616, 242525, 298231, 349086, 263437, 524288, 356012],
  ],
  ["zeros", new Uint8Array(2 * KIB * KIB), [524288, 524288, 524288, 524288]],
];

/** Ranges at the edges of a blob and of chunks: where each begins, and its length. */
function rangesOf(length: number): readonly (readonly [number, number | undefined])[] {
  return [
    [0, 0],
    [0, 1],
    [0, length],
    [1, undefined],
    [100 * KIB, 300 * KIB],
    [128 * KIB - 1, 2],
    [512 * KIB, undefined],
    [Math.max(length - 1, 0), 1],
    [Math.max(length - 1, 0), 300 * KIB],
    [length, undefined],
    [length + 1, 1],
  ];
}

/** Registers tests of everything that the contract of BlobService promises. */
export function blobServiceSuite(name: string, options: BlobServiceSuiteOptions): void {
  describe(`${name} is a BlobService`, () => {
    describe.each(CONTENTS)("with a blob of %s", (_, contents) => {
      const digest = blake3Digest(contents);
      let service: BlobService;
      let stored: B3Digest;
      beforeAll(async () => {
        service = await options.create();
        stored = await putBlob(service, contents.slice());
      });
      afterAll(() => service[Symbol.asyncDispose]());

      it("gives its digest and reads it back", async () => {
        expect(stored.equals(digest)).toBe(true);
        expect(await service.has(digest)).toBe(true);
        await expectStored(service, contents);
      });

      it("tells how it is cut, and reads each chunk by its own digest", async () => {
        const chunks = (await chunksOf(service, digest))!;
        const parts: Uint8Array[] = [];
        for (const chunk of chunks) {
          expect(await service.has(chunk.digest)).toBe(true);
          expect(await chunksOf(service, chunk.digest)).toEqual([chunk]);
          const part = (await readBack(service, chunk.digest))!;
          expect(blake3Digest(part).equals(chunk.digest)).toBe(true);
          expect(part.length).toBe(chunk.size);
          parts.push(part);
        }
        expect(equalBytes(concatBytes(parts), contents)).toBe(true);
      });

      it("reads any range of it", async () => {
        for (const [offset, length] of rangesOf(contents.length)) {
          const end = length === undefined ? contents.length : offset + length;
          const found = (await readBack(service, digest, { offset, length }))!;
          expect(equalBytes(found, contents.subarray(offset, end))).toBe(true);
        }
      });
    });

    let service: BlobService;
    beforeEach(async () => {
      service = await options.create();
    });
    afterEach(() => service[Symbol.asyncDispose]());

    it("does not have what was never put", async () => {
      await expectAbsent(service, blake3Digest(Buffer.from("never")));
      await expectAbsent(service, blake3Digest(EMPTY));
      expect(await verifiedRange(service, blake3Digest(EMPTY))).toBeUndefined();
    });

    it.each(CUTS)("stores a blob of %s that comes in pieces of any size", async (_, contents) => {
      const expected = blake3Digest(contents);
      for (const step of [4093, 1000 * KIB]) {
        expect((await putInPieces(service, contents, step)).equals(expected)).toBe(true);
      }
      await expectStored(service, contents);
    });

    if (options.capabilities?.chunks) {
      it.each(CUTS)("cuts a blob of %s where the reference does", async (_, contents, sizes) => {
        const chunks = (await chunksOf(service, await putBlob(service, contents.slice())))!;
        expect(chunks.map(({ size }) => size)).toEqual(sizes);
      });
    }

    it("reads a range of a blob that the digest of the whole proves", async () => {
      const digest = await putBlob(service, MANY_CHUNKS.slice());
      const { length } = MANY_CHUNKS;
      for (const offset of [0, 100 * KIB + 7, 800 * KIB, length]) {
        for (const size of [0, 300 * KIB, undefined]) {
          const range = { offset, ...(size !== undefined && { length: size }) };
          const found = await collectBytes((await verifiedRange(service, digest, range))!);
          const end = size === undefined ? length : offset + size;
          expect(equalBytes(found, MANY_CHUNKS.subarray(offset, end))).toBe(true);
        }
      }
    });

    it("refuses to read a range whose offset or length is no natural number", async () => {
      const digest = await putBlob(service, Buffer.from("contents"));
      for (const bad of [-1, 0.5, Number.NaN]) {
        for (const range of [{ offset: bad }, { length: bad }]) {
          const refused = { code: "invalid_argument" };
          await expect(readBack(service, digest, range)).rejects.toMatchObject(refused);
        }
      }
    });

    it("reads the same again when a reader has changed what it got", async () => {
      await putBlob(service, MANY_CHUNKS.slice());
      for await (const part of (await service.read(blake3Digest(MANY_CHUNKS)))!) part.fill(0);
      await expectStored(service, MANY_CHUNKS);
    });

    it("lets many read the same blob at the same time", async () => {
      await putBlob(service, MANY_CHUNKS.slice());
      await Promise.all(Array.from({ length: 4 }, () => expectStored(service, MANY_CHUNKS)));
    });

    it("ends a read that is cancelled, with the reason", async () => {
      const digest = await putBlob(service, MANY_CHUNKS.slice());
      const controller = new AbortController();
      const reason = new Error("enough");
      const stream = (await service.read(digest, { signal: controller.signal }))!;
      const reading = async () => {
        for await (const _ of stream) controller.abort(reason);
      };
      await expect(reading()).rejects.toBe(reason);
      await expectStored(service, MANY_CHUNKS);
    });

    it("lets a reader end early", async () => {
      const digest = await putBlob(service, MANY_CHUNKS.slice());
      for (let i = 0; i < 20; i++) {
        for await (const part of (await service.read(digest))!) {
          expect(equalBytes(part, MANY_CHUNKS.subarray(0, part.length))).toBe(true);
          break;
        }
      }
      await expectStored(service, MANY_CHUNKS);
    });

    blobWriterTests(() => service, options);
    blobBatchTests(() => service);
    blobReaderTests(() => service);
    blobListTests(() => service);
    blobPutFramesTests(() => service);
    if (options.capabilities?.reliable ?? true) blobFrameTests(() => service);
  });

  if (options.createPair !== undefined) sharedBlobTests(name, options.createPair);
}
