import {
  B3Digest,
  type BlobService,
  collectBytes,
  concatBytes,
  equalBytes,
  putBlob,
} from "@tvix/castore";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { seededBytes } from "./trees.ts";

/** What a blob service can do beyond its contract. */
export interface BlobServiceCapabilities {
  /** Whether `chunks` tells how larger blobs are cut. */
  readonly chunks: boolean;
}

const KIB = 1024;
const EMPTY = new Uint8Array(0);

/** Contents at the edges of chunking, whose average is 256 KiB. */
const CONTENTS: readonly (readonly [string, Uint8Array])[] = [
  ["no bytes", EMPTY],
  ["one byte", Uint8Array.of(42)],
  ["the smallest chunk", seededBytes("small", 128 * KIB)],
  ["a byte more than the smallest chunk", seededBytes("small", 128 * KIB + 1)],
  ["the largest chunk", seededBytes("large", 512 * KIB)],
  ["many chunks", seededBytes("many", 3 * KIB * KIB)],
  ["many chunks that are all the same", Buffer.alloc(3 * KIB * KIB + 7)],
];

/** Writes a blob in pieces of at most `step` bytes. */
async function putInPieces(
  service: BlobService,
  contents: Uint8Array,
  step: number,
): Promise<B3Digest> {
  await using writer = service.openWriter();
  for (let at = 0; at < contents.length; at += step) {
    await writer.write(contents.slice(at, at + step));
  }
  return await writer.close();
}

async function readBack(
  service: BlobService,
  digest: B3Digest,
  range?: { offset?: number; length?: number },
): Promise<Uint8Array | undefined> {
  const stream = await service.read(digest, range);
  return stream && (await collectBytes(stream));
}

async function expectAbsent(service: BlobService, digest: B3Digest): Promise<void> {
  expect(await service.has(digest)).toBe(false);
  expect(await service.chunks(digest)).toBeUndefined();
  expect(await service.read(digest)).toBeUndefined();
}

/**
 * What every BlobService has to do.
 *
 * @param create gives a fresh, empty service, which the suite disposes of
 */
export function blobServiceSuite(
  name: string,
  options: { create: () => Promise<BlobService>; capabilities: BlobServiceCapabilities },
): void {
  describe(`${name} is a BlobService`, () => {
    let service: BlobService;
    beforeEach(async () => {
      service = await options.create();
    });
    afterEach(() => service[Symbol.asyncDispose]());

    it("does not have what was never put", async () => {
      await expectAbsent(service, B3Digest.of(Buffer.from("never")));
      await expectAbsent(service, B3Digest.of(EMPTY));
    });

    describe.each(CONTENTS)("with a blob of %s", (_, contents) => {
      const digest = B3Digest.of(contents);

      it("gives its digest and reads it back", async () => {
        expect((await putBlob(service, contents.slice())).equals(digest)).toBe(true);
        expect(await service.has(digest)).toBe(true);
        expect(equalBytes((await readBack(service, digest))!, contents)).toBe(true);
      });

      it("takes it in pieces of any size", async () => {
        for (const step of [contents.length < 1000 ? 1 : 4093, 1000 * KIB]) {
          expect((await putInPieces(service, contents, step)).equals(digest)).toBe(true);
        }
        expect(equalBytes((await readBack(service, digest))!, contents)).toBe(true);
      });

      it("tells how it is cut, and reads each chunk by its own digest", async () => {
        await putBlob(service, contents.slice());
        const chunks = (await service.chunks(digest))!;
        if (options.capabilities.chunks)
          expect(chunks.length > 0).toBe(contents.length > 512 * KIB);
        if (chunks.length === 0) return;
        const parts: Uint8Array[] = [];
        for (const chunk of chunks) {
          expect(await service.has(chunk.digest)).toBe(true);
          expect(await service.chunks(chunk.digest)).toEqual([]);
          const part = (await readBack(service, chunk.digest))!;
          expect(B3Digest.of(part).equals(chunk.digest)).toBe(true);
          expect(part.length).toBe(chunk.size);
          parts.push(part);
        }
        expect(equalBytes(concatBytes(parts), contents)).toBe(true);
      });

      it("reads any range of it", async () => {
        await putBlob(service, contents.slice());
        const { length } = contents;
        const offsets = [0, 1, 128 * KIB - 1, 512 * KIB, length - 1, length, length + 1];
        for (const offset of offsets.filter((offset) => offset >= 0)) {
          for (const size of [0, 1, 300 * KIB, length, undefined]) {
            const expected = contents.subarray(offset, size === undefined ? length : offset + size);
            const found = (await readBack(service, digest, { offset, length: size }))!;
            expect(found.length).toBe(expected.length);
            expect(equalBytes(found, expected)).toBe(true);
          }
        }
      });
    });

    it.each([{ offset: -1 }, { offset: 0.5 }, { length: -1 }, { length: Number.NaN }])(
      "refuses to read the range %o",
      async (range) => {
        const digest = await putBlob(service, Buffer.from("contents"));
        const reading = (async () => await readBack(service, digest, range))();
        await expect(reading).rejects.toMatchObject({ code: "invalid_argument" });
      },
    );

    it("ends a read that is cancelled, with the reason", async () => {
      const digest = await putBlob(service, seededBytes("read", 3 * KIB * KIB));
      const controller = new AbortController();
      const reason = new Error("enough");
      const stream = (await service.read(digest, { signal: controller.signal }))!;
      const reading = async () => {
        for await (const _ of stream) controller.abort(reason);
      };
      await expect(reading()).rejects.toBe(reason);
      expect(await service.has(digest)).toBe(true);
    });

    it("lets a reader end early", async () => {
      const contents = seededBytes("early", 3 * KIB * KIB);
      const digest = await putBlob(service, contents.slice());
      for (let i = 0; i < 20; i++) {
        for await (const part of (await service.read(digest))!) {
          expect(equalBytes(part, contents.subarray(0, part.length))).toBe(true);
          break;
        }
      }
      expect(equalBytes((await readBack(service, digest))!, contents)).toBe(true);
    });
  });
}
