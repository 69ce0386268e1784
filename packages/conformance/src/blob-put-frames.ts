import { constants, zstdCompressSync } from "node:zlib";
import {
  type BlobService,
  blake3Digest,
  ChunkList,
  concatBytes,
  type FrameBatch,
  putBlob,
} from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { expectAbsent, expectStored, KIB } from "./blob-support.ts";
import { seededBytes } from "./trees.ts";

const PIECES: readonly Uint8Array[] = [
  new Uint8Array(100 * KIB).fill(7),
  seededBytes("framed 0", 3000),
  seededBytes("framed 1", 1),
  seededBytes("framed 2", 300 * KIB),
];

function listOf(pieces: readonly Uint8Array[]): ChunkList {
  return ChunkList.of(pieces.map((data) => ({ digest: blake3Digest(data), size: data.length })));
}

/** Compresses contents, with a content size, by the library of Node.js. */
function frameOf(data: Uint8Array, params: Record<number, number> = {}): Buffer {
  return zstdCompressSync(data, { params });
}

function batchOf(pieces: readonly Uint8Array[], blobs: FrameBatch["blobs"] = []): FrameBatch {
  return { chunks: listOf(pieces), frames: pieces.map((data) => frameOf(data)), blobs };
}

function blobOf(pieces: readonly Uint8Array[]): FrameBatch["blobs"][number] {
  return { digest: blake3Digest(concatBytes(pieces)), chunks: listOf(pieces) };
}

const DATA = seededBytes("framed 0", 3000);
const FRAME = frameOf(DATA);
/** Bits of the byte that begins behind the magic number tell which fields follow. */
const withDescriptor = (change: (descriptor: number) => number) => {
  const frame = Buffer.from(FRAME);
  frame[4] = change(frame[4]!);
  return frame;
};

/** A frame that states a window of 2 GiB: magic, descriptor (content size of 4 bytes), window, size, one raw block. */
const WIDE = Buffer.concat([
  Buffer.from("28b52ffd80a8b80b0000", "hex"),
  Buffer.from([1 | ((3000 << 3) & 0xff), (3000 >> 5) & 0xff, 3000 >> 13]),
  DATA,
]);

/** Frames of {@link DATA} that are refused. */
const REFUSED: readonly (readonly [what: string, frame: Uint8Array])[] = [
  ["no frame", Buffer.from("this is no frame of zstd at all")],
  ["nothing", Buffer.alloc(0)],
  ["a frame of other contents", frameOf(seededBytes("framed 9", 3000))],
  ["a frame of contents of another length", frameOf(DATA.subarray(1))],
  ["a frame that is cut off", FRAME.subarray(0, -1)],
  ["a frame with a byte behind it", Buffer.concat([FRAME, Buffer.of(0)])],
  ["two frames", Buffer.concat([FRAME, FRAME])],
  [
    "a frame behind one that is skipped",
    Buffer.concat([Buffer.from("502a4d1800000000", "hex"), FRAME]),
  ],
  ["a frame without a content size", frameOf(DATA, { [constants.ZSTD_c_contentSizeFlag]: 0 })],
  ["a frame that needs a dictionary", withDescriptor((descriptor) => descriptor | 1)],
  ["a frame with a window of 2 GiB", WIDE],
  [
    "a frame that is damaged",
    Buffer.concat([FRAME.subarray(0, 20), Buffer.alloc(FRAME.length - 20)]),
  ],
];

/** That chunks are taken as others have compressed them. */
export function blobPutFramesTests(service: () => BlobService): void {
  describe("put as frames", () => {
    it("stores chunks", async () => {
      await service().putFrames(batchOf(PIECES));
      for (const piece of PIECES) await expectStored(service(), piece);
      const frames = await Array.fromAsync(service().frames(listOf(PIECES)));
      expect(frames).toHaveLength(PIECES.length);
    });

    it("stores a chunk in a frame with a checksum, or of raw blocks", async () => {
      const { ZSTD_c_checksumFlag } = constants;
      const noise = seededBytes("framed noise", 200 * KIB);
      const frames = [frameOf(DATA, { [ZSTD_c_checksumFlag]: 1 }), frameOf(noise)];
      await service().putFrames({ chunks: listOf([DATA, noise]), frames, blobs: [] });
      await expectStored(service(), DATA);
      await expectStored(service(), noise);
    });

    it("keeps nothing of the frames that it was lent", async () => {
      const { frames, ...batch } = batchOf(PIECES);
      const lent = frames.map((frame) => new Uint8Array(frame));
      await service().putFrames({ ...batch, frames: lent });
      for (const frame of lent) frame.fill(0);
      for (const piece of PIECES) await expectStored(service(), piece);
    });

    it("stores blobs of chunks in a row", async () => {
      const [first, second] = [PIECES.slice(0, 2), PIECES.slice(2)];
      await service().putFrames(batchOf(PIECES, [blobOf(first), blobOf(second)]));
      await expectStored(service(), concatBytes(first));
      await expectStored(service(), concatBytes(second));
    });

    it("stores blobs of chunks in any order, and of those that are there", async () => {
      await putBlob(service(), PIECES[3]!.slice());
      const turned = [PIECES[2]!, PIECES[3]!, PIECES[0]!, PIECES[2]!];
      await service().putFrames(batchOf(PIECES.slice(0, 3), [blobOf(turned)]));
      await expectStored(service(), concatBytes(turned));
    });

    it("stores again what is there", async () => {
      const batch = batchOf(PIECES, [blobOf(PIECES)]);
      await service().putFrames(batch);
      await service().putFrames(batch);
      await expectStored(service(), concatBytes(PIECES));
    });

    it("stores the rest of a batch of which some is there, and some comes twice", async () => {
      await service().putFrames(batchOf([PIECES[0]!, PIECES[2]!]));
      const batch = [PIECES[0]!, PIECES[1]!, PIECES[2]!, PIECES[1]!, PIECES[3]!];
      await service().putFrames(batchOf(batch, [blobOf(batch)]));
      for (const piece of PIECES) await expectStored(service(), piece);
      await expectStored(service(), concatBytes(batch));
    });

    it("stores a blob that comes in parts, in any order, and ends the upload", async () => {
      const upload = new Uint8Array(16).fill(7);
      const parts = [PIECES.slice(0, 1), PIECES.slice(1, 3), PIECES.slice(3)];
      const offsets = parts.map((_, i) => concatBytes(parts.slice(0, i).flat()).length);
      const put = (i: number) =>
        service().putFrames({ ...batchOf(parts[i]!), part: { upload, offset: offsets[i]! } });
      await Promise.all([put(1), put(0)]);
      await put(2);
      const { digest, chunks } = blobOf(PIECES);
      await service().putList(digest, chunks, { upload });
      await expectStored(service(), concatBytes(PIECES));
      const other = blobOf(PIECES.toReversed());
      const putting = service().putList(other.digest, chunks, { upload });
      await expect(putting).rejects.toMatchObject({ code: "data_loss" });
      await expectAbsent(service(), other.digest);
    });

    it("stores nothing of an empty batch", async () => {
      await service().putFrames(batchOf([]));
    });

    it.each(REFUSED)("refuses %s", async (_, frame) => {
      const other = PIECES[2]!;
      const putting = service().putFrames({
        chunks: listOf([other, DATA]),
        frames: [frameOf(other), frame],
        blobs: [],
      });
      await expect(putting).rejects.toMatchObject({ code: "invalid_argument" });
      await expectAbsent(service(), blake3Digest(DATA));
      await service().putFrames(batchOf([DATA])); // nothing has stayed of it
      await expectStored(service(), DATA);
    });

    it("refuses more frames than chunks, and fewer", async () => {
      const chunks = listOf([DATA]);
      for (const frames of [[], [FRAME, FRAME]]) {
        const putting = service().putFrames({ chunks, frames, blobs: [] });
        await expect(putting).rejects.toMatchObject({ code: "invalid_argument" });
      }
    });

    it("refuses a blob of other chunks", async () => {
      const { digest } = blobOf(PIECES.slice(1));
      const batch = batchOf(PIECES, [{ digest, chunks: listOf(PIECES) }]);
      await expect(service().putFrames(batch)).rejects.toMatchObject({ code: "data_loss" });
      await expectAbsent(service(), digest);
    });

    it("refuses a blob of a chunk that is absent", async () => {
      const blob = blobOf([PIECES[0]!, seededBytes("nowhere", 10)]);
      const putting = service().putFrames(batchOf(PIECES.slice(0, 1), [blob]));
      await expect(putting).rejects.toMatchObject({ code: "not_found" });
      await expectAbsent(service(), blob.digest);
    });

    it("rejects with the reason when it is cancelled", async () => {
      const reason = new Error("no longer wanted");
      const putting = service().putFrames(batchOf(PIECES), { signal: AbortSignal.abort(reason) });
      await expect(putting).rejects.toBe(reason);
    });
  });
}
