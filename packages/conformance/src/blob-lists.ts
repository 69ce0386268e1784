import { zstdDecompressSync } from "node:zlib";
import {
  type BlobService,
  blake3Digest,
  ChunkList,
  type ChunkMeta,
  concatBytes,
  equalBytes,
  freeMemory,
  putBlob,
  type StoredBlob,
} from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { chunksOf, EMPTY, expectAbsent, expectStored, KIB, MANY_CHUNKS } from "./blob-support.ts";
import { seededBytes } from "./trees.ts";

/** Pieces that are stored as blobs of their own, and their list: as somebody cut a blob who does so otherwise. */
const PIECES: readonly Uint8Array[] = [
  seededBytes("listed 0", 3000),
  seededBytes("listed 1", 1),
  new Uint8Array(100 * KIB),
  seededBytes("listed 0", 3000),
];
const WHOLE: Uint8Array = concatBytes(PIECES);

function listOf(pieces: readonly Uint8Array[]): ChunkList {
  return ChunkList.of(pieces.map((data) => ({ digest: blake3Digest(data), size: data.length })));
}

const PROOFS = [
  ["that are read to prove the list", {}],
  ["that were hashed before", { proven: true }],
] as const;

/** That blobs are committed by lists of chunks, and chunks given as they are stored. */
export function blobListTests(service: () => BlobService): void {
  describe.each(PROOFS)("put as a list of chunks %s", (_, options) => {
    it("stores the blob", async () => {
      await service().putMany(PIECES);
      const digest = blake3Digest(WHOLE);
      await service().putList(digest, listOf(PIECES), options);
      expect(await service().has(digest)).toBe(true);
      await expectStored(service(), WHOLE);
      await using reader = (await service().open(digest))!;
      const part = await reader.read(2990, 100);
      expect(equalBytes(part, WHOLE.subarray(2990, 3090))).toBe(true);
      for (const piece of PIECES) await expectStored(service(), piece);
    });

    it("stores a blob of chunks of others", async () => {
      const one = (await chunksOf(service(), await putBlob(service(), MANY_CHUNKS.slice())))!;
      const swapped = [...one.slice(1), one[0]!];
      const contents = concatBytes([
        MANY_CHUNKS.subarray(one[0]!.size),
        MANY_CHUNKS.subarray(0, one[0]!.size),
      ]);
      await service().putList(blake3Digest(contents), ChunkList.of(swapped), options);
      await expectStored(service(), contents);
    });

    it("stores again a blob that is there", async () => {
      const digest = await putBlob(service(), MANY_CHUNKS.slice());
      const chunks = ChunkList.of((await chunksOf(service(), digest))!);
      await service().putList(digest, chunks, options);
      await expectStored(service(), MANY_CHUNKS);
    });

    it("takes a list of one chunk, which is the blob", async () => {
      const chunks = (await chunksOf(service(), await putBlob(service(), MANY_CHUNKS.slice())))!;
      const [first] = chunks as [ChunkMeta];
      await service().putList(first.digest, ChunkList.of([first]), options);
      await expectStored(service(), MANY_CHUNKS.subarray(0, first.size));
      expect(await chunksOf(service(), first.digest)).toEqual([first]);
    });

    it("takes a list of a blob of several chunks, as of any other", async () => {
      const tail = Buffer.from("tail");
      await service().putMany([MANY_CHUNKS, tail]);
      const contents = concatBytes([MANY_CHUNKS, tail]);
      await service().putList(blake3Digest(contents), listOf([MANY_CHUNKS, tail]), options);
      await expectStored(service(), contents);
    });

    it("takes a list of nothing, which is the empty blob", async () => {
      await service().putList(blake3Digest(EMPTY), ChunkList.of([]), options);
      await expectStored(service(), EMPTY);
    });

    it("refuses a list of nothing, or one chunk, for another blob", async () => {
      await service().putMany(PIECES);
      const digest = blake3Digest(Buffer.from("other"));
      for (const pieces of [[], PIECES.slice(0, 1)]) {
        const putting = service().putList(digest, listOf(pieces), options);
        await expect(putting).rejects.toMatchObject({ code: "data_loss" });
      }
      await expectAbsent(service(), digest);
    });

    it("names the first chunk that is absent, and stores nothing", async () => {
      await service().putMany(PIECES.slice(0, 1));
      const digest = blake3Digest(WHOLE);
      await expect(service().putList(digest, listOf(PIECES), options)).rejects.toMatchObject({
        code: "not_found",
        message: expect.stringContaining(blake3Digest(PIECES[1]!).toString()),
      });
      await expectAbsent(service(), digest);
      const [piece] = [Buffer.from("absent")];
      const alone = service().putList(blake3Digest(piece!), listOf([piece!]), options);
      await expect(alone).rejects.toMatchObject({ code: "not_found" });
    });

    it("refuses a chunk that is listed with another length", async () => {
      await service().putMany(PIECES);
      const [first, ...others] = [...listOf(PIECES)] as [ChunkMeta];
      const wrong = ChunkList.of([{ ...first, size: first.size + 1 }, ...others]);
      const digest = blake3Digest(WHOLE);
      const putting = service().putList(digest, wrong, options);
      await expect(putting).rejects.toMatchObject({ code: "data_loss" });
      await expectAbsent(service(), digest);
    });

    it("does nothing when it is cancelled before", async () => {
      await service().putMany(PIECES);
      const reason = new Error("enough");
      const signal = AbortSignal.abort(reason);
      const digest = blake3Digest(WHOLE);
      const putting = service().putList(digest, listOf(PIECES), { ...options, signal });
      await expect(putting).rejects.toBe(reason);
      await expectAbsent(service(), digest);
    });
  });

  it("refuses a list whose chunks make up another blob, and stores neither", async () => {
    await service().putMany(PIECES);
    const digest = blake3Digest(MANY_CHUNKS);
    await expect(service().putList(digest, listOf(PIECES))).rejects.toMatchObject({
      code: "data_loss",
    });
    await expectAbsent(service(), digest);
    await expectAbsent(service(), blake3Digest(WHOLE));
  });
}

/** Registers tests of the frames of chunks. */
export function blobFrameTests(service: () => BlobService): void {
  describe("gives chunks as frames", () => {
    const framesOf = (chunks: ChunkList) => Array.fromAsync(service().frames(chunks));
    /** Whether the service tells the lengths of the frames of chunks, which it stores then; or the code of its refusal. */
    const storesFrames = async (chunks: ChunkList): Promise<boolean | string> =>
      (await service()
        .frameSizes?.(chunks)
        .then(
          () => true,
          (error) => error.code,
        )) ?? false;

    it("of zstd, one for each, which state their content size", async () => {
      const text = Buffer.alloc(300 * KIB, "compressible ");
      const blobs = [text, seededBytes("noise", 1), seededBytes("noise", 300), ...PIECES];
      const large = [await putBlob(service(), MANY_CHUNKS.slice()), await putBlob(service(), text)];
      await service().putMany(blobs);
      const cut = await Promise.all(large.map((digest) => chunksOf(service(), digest)));
      const chunks = ChunkList.of([...listOf(PIECES), ...cut.flatMap((chunks) => chunks!)]);
      const frames = await framesOf(chunks);
      expect(frames.length).toBe(chunks.length);
      for (const [i, frame] of frames.entries()) {
        const { digest, size } = chunks.at(i);
        // A decompressor that gets no more than the frame states, and nothing but one frame.
        const contents = zstdDecompressSync(frame, { maxOutputLength: size });
        expect(contents.length).toBe(size);
        expect(blake3Digest(contents).equals(digest)).toBe(true);
        expect(statedSize(frame)).toBe(size);
      }
    });

    it("hardly longer than incompressible chunks", async () => {
      const noise = seededBytes("incompressible", 256 * KIB);
      const digest = await putBlob(service(), noise.slice());
      const chunks = ChunkList.of((await chunksOf(service(), digest))!);
      const length = (await framesOf(chunks)).reduce((sum, frame) => sum + frame.length, 0);
      expect(length).toBeLessThanOrEqual(noise.length + chunks.length * 32);
    });

    it("none of an empty list", async () => {
      expect(await framesOf(ChunkList.of([]))).toEqual([]);
    });

    it("up to one that is absent, or has another length than listed", async () => {
      await service().putMany(PIECES);
      const [first, second] = [...listOf(PIECES)] as [ChunkMeta, ChunkMeta];
      const absent: ChunkMeta = { digest: blake3Digest(Buffer.from("never")), size: 5 };
      for (const wrong of [absent, { ...second, size: 2 }]) {
        const frames = service().frames(ChunkList.of([first, wrong]));
        await expect(Array.fromAsync(frames)).rejects.toMatchObject({ code: "data_loss" });
      }
    });

    it("verified, of lengths that are known beforehand, where it stores them", async () => {
      const { frameSizes, verifiedFrames } = service();
      expect(typeof verifiedFrames).toBe(typeof frameSizes);
      if (frameSizes === undefined || verifiedFrames === undefined) return;
      const [piece] = await service().putMany([PIECES[0]!]);
      const first = ChunkList.of([{ digest: piece!, size: PIECES[0]!.length }]);
      const isStored = await storesFrames(first);
      if (isStored === "unimplemented") return; // what a server tells
      expect(isStored).toBe(true);
      await service().putMany([...PIECES, Buffer.alloc(300 * KIB, "compressible ")]);
      const large = await putBlob(service(), MANY_CHUNKS.slice());
      const many = [...listOf(PIECES), ...(await chunksOf(service(), large))!];
      const absent: ChunkMeta = { digest: blake3Digest(Buffer.from("never")), size: 5 };
      const small = [...listOf(PIECES)];
      const repeated = (count: number) =>
        Array.from({ length: count }, (_, i) => small[i % small.length]!);
      // Also around the end of a turn and of a batch.
      for (const list of [many, [], ...[500, 501, 3000].map(repeated)]) {
        const chunks = ChunkList.of(list);
        const frames = await framesOf(chunks);
        const sizes = await service().frameSizes!(chunks);
        expect([...sizes]).toEqual(frames.map(({ length }) => length));
        const verified: Uint8Array[] = [];
        for await (const batch of service().verifiedFrames!(chunks)) {
          verified.push(...batch.map((frame) => frame.slice())); // only lent
        }
        expect(verified.length).toBe(list.length);
        for (const [i, frame] of verified.entries())
          expect(equalBytes(frame, frames[i]!)).toBe(true);
        if (list.length !== 500) continue;
        const lacking = ChunkList.of([...list, absent]);
        const refusal = { code: "data_loss" };
        await expect(service().frameSizes!(lacking)).rejects.toMatchObject(refusal);
        const reading = Array.fromAsync(service().verifiedFrames!(lacking));
        await expect(reading).rejects.toMatchObject(refusal);
      }
      const reason = new Error("enough");
      const cancelled = { signal: AbortSignal.abort(reason) };
      const all = ChunkList.of(many);
      await expect(service().frameSizes!(all, cancelled)).rejects.toBe(reason);
      await expect(Array.fromAsync(service().verifiedFrames!(all, cancelled))).rejects.toBe(reason);
      for await (const _ of service().verifiedFrames!(all)) break;
    });

    it("of small blobs as it stores them, whole or cut, where it does", async () => {
      const { readManyStored } = service();
      if (readManyStored === undefined) return;
      const blobs = [
        ...PIECES,
        Buffer.alloc(20 * KIB, "compressible "),
        seededBytes("incompressible", 10 * KIB),
        MANY_CHUNKS.slice(),
      ];
      await service().putMany(blobs);
      const wanted = blobs.map((data) => ({ digest: blake3Digest(data), size: data.length }));
      const absent: ChunkMeta = { digest: blake3Digest(Buffer.from("never")), size: 5 };
      const wrong = { ...wanted[0]!, size: wanted[0]!.size + 1 };
      let found: readonly (StoredBlob | undefined)[] = [];
      for (const _ of ["first", "after the memory of the first was freed"]) {
        found = await service().readManyStored!([absent, ...wanted, wrong]);
        expect([found[0], found.at(-1)]).toEqual([undefined, undefined]);
        const memories = new Set<Uint8Array>();
        for (const [i, data] of blobs.entries()) {
          const stored = found[i + 1]!;
          const contents = "frame" in stored ? zstdDecompressSync(stored.frame) : stored.contents;
          expect(equalBytes(contents, data)).toBe(true);
          if ("frame" in stored) expect(statedSize(stored.frame)).toBe(data.length);
          if (stored.memory !== undefined) memories.add(stored.memory);
        }
        for (const memory of memories) freeMemory([memory]);
      }
      if ((await storesFrames(ChunkList.of([wanted[0]!]))) === true) {
        expect(found.some((stored) => stored && "frame" in stored)).toBe(true);
      }
      const reason = new Error("enough");
      const cancelled = { signal: AbortSignal.abort(reason) };
      await expect(service().readManyStored!(wanted, cancelled)).rejects.toBe(reason);
    });

    it("until it is cancelled, or the reader ends early", async () => {
      const digest = await putBlob(service(), MANY_CHUNKS.slice());
      const chunks = ChunkList.of((await chunksOf(service(), digest))!);
      const controller = new AbortController();
      const reason = new Error("enough");
      const reading = async () => {
        const frames = service().frames(chunks, { signal: controller.signal });
        for await (const _ of frames) controller.abort(reason);
      };
      await expect(reading()).rejects.toBe(reason);
      for await (const _ of service().frames(chunks)) break;
      await expectStored(service(), MANY_CHUNKS);
    });
  });
}

/** The content size in the header of a frame, after RFC 8878, section 3.1.1.1; `undefined` where there is none. */
function statedSize(frame: Uint8Array): number | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  expect(view.getUint32(0, true)).toBe(0xfd2fb528);
  const descriptor = view.getUint8(4);
  const isSingleSegment = (descriptor & 0x20) > 0;
  const at = 5 + (isSingleSegment ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]!;
  const flag = descriptor >> 6;
  if (flag === 0) return isSingleSegment ? view.getUint8(at) : undefined;
  if (flag === 1) return view.getUint16(at, true) + 256;
  return flag === 2 ? view.getUint32(at, true) : Number(view.getBigUint64(at, true));
}
