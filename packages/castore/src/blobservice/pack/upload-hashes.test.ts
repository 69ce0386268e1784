import { writeFileSync } from "node:fs";
import { zstdCompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { noise } from "../../../test/noise.ts";
import { PackStore } from "../../../test/pack-store.ts";
import { readBack } from "../../../test/watched-blobs.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import type { B3Digest } from "../../model/digest.ts";
import type { BlobService, FrameBatch } from "../blob-service.ts";
import { ChunkList } from "../chunk-list.ts";

const store = new PackStore();
const KIB = 1024;

/** Three parts of a blob, of several chunks each: compressible ones, and others. */
const PARTS: readonly (readonly Uint8Array[])[] = [
  [noise(100 * KIB, 1), Buffer.alloc(300 * KIB, "compressible ")],
  [noise(200 * KIB, 2), noise(512 * KIB, 3), noise(500 * KIB, 4), noise(10, 5)],
  [Buffer.alloc(150 * KIB, "and more "), noise(7, 6)],
];
const CONTENTS = Buffer.concat(PARTS.flat());
const DIGEST = blake3Digest(CONTENTS);
const CHUNKS = listOf(PARTS.flat());

function listOf(pieces: readonly Uint8Array[]): ChunkList {
  return ChunkList.of(pieces.map((data) => ({ digest: blake3Digest(data), size: data.length })));
}

function name(byte: number): Uint8Array {
  return new Uint8Array(16).fill(byte);
}
const UPLOAD = name(1);

/** Returns the frames of a part of an upload. */
function batchOf(i: number, upload = UPLOAD, parts = PARTS): FrameBatch {
  const offset = Buffer.concat(parts.slice(0, i).flat()).length;
  const frames = parts[i]!.map((data) => zstdCompressSync(data));
  return { chunks: listOf(parts[i]!), frames, blobs: [], part: { upload, offset } };
}

function open(): Promise<BlobService> {
  return store.open({ onCorrupt: () => undefined });
}

/** Makes all that is stored unreadable: a list whose chunks are read is refused from now on. */
function damage(): void {
  writeFileSync(store.packOf(), Buffer.alloc(2 * CONTENTS.length));
}

async function expectUnread(
  service: BlobService,
  chunks: ChunkList = CHUNKS,
  digest: B3Digest = DIGEST,
): Promise<void> {
  damage();
  await service.putList(digest, chunks, { upload: UPLOAD });
  expect(await service.statMany([digest])).toEqual([{ size: chunks.size, chunks: chunks.length }]);
}

async function expectRead(service: BlobService): Promise<void> {
  damage();
  const putting = service.putList(DIGEST, CHUNKS, { upload: UPLOAD });
  await expect(putting).rejects.toThrow("is absent"); // as it is damaged
  expect(await service.has(DIGEST)).toBe(false);
}

describe("a blob whose chunks come as parts of an upload", () => {
  it("is stored without reading them, and reads back", async () => {
    await using service = await open();
    for (const i of PARTS.keys()) await service.putFrames(batchOf(i));
    await service.putList(DIGEST, CHUNKS, { upload: UPLOAD });
    expect((await readBack(service, DIGEST)).equals(CONTENTS)).toBe(true);
  });

  it.each([
    ["one after the other", [0, 1, 2]],
    ["the last first", [2, 1, 0]],
    ["the first in the middle", [1, 0, 2]],
  ])("is hashed while its parts come, %s", async (_, order) => {
    await using service = await open();
    await Promise.all(order.map((i) => service.putFrames(batchOf(i))));
    await expectUnread(service);
  });

  it("is hashed with parts longer than what is decoded at a time, beside other uploads", async () => {
    await using service = await open();
    const zeros = (bytes: number) => Array.from({ length: 8 }, () => new Uint8Array(bytes));
    const parts = [zeros(500 * KIB), zeros(400 * KIB), zeros(300 * KIB)];
    const others = [2, 3, 4].flatMap((other) =>
      [...parts.keys()].map((i) => service.putFrames(batchOf(i, name(other), parts))),
    );
    await Promise.all([...parts.keys()].map((i) => service.putFrames(batchOf(i, UPLOAD, parts))));
    await Promise.all(others);
    await expectUnread(service, listOf(parts.flat()), blake3Digest(Buffer.concat(parts.flat())));
  });

  it("is read if it does not name the upload, or names it a second time", async () => {
    await using service = await open();
    for (const i of PARTS.keys()) await service.putFrames(batchOf(i));
    await service.putList(DIGEST, CHUNKS, { upload: UPLOAD });
    damage();
    for (const upload of [UPLOAD, undefined]) {
      const putting = service.putList(DIGEST, CHUNKS, { upload });
      await expect(putting).rejects.toThrow("is absent"); // as it is damaged
    }
  });

  it("is refused where the parts make up another blob, and nothing of it is stored", async () => {
    await using service = await open();
    for (const i of PARTS.keys()) await service.putFrames(batchOf(i));
    const other = blake3Digest(noise(10, 9));
    const putting = service.putList(other, CHUNKS, { upload: UPLOAD });
    await expect(putting).rejects.toMatchObject({ code: "data_loss" });
    expect(await service.has(other)).toBe(false);
  });

  it("is refused where the upload had other chunks than the list", async () => {
    await using service = await open();
    const parts = [...PARTS.keys()];
    for (const i of parts) await service.putFrames(batchOf(i));
    const swapped = ChunkList.of([...CHUNKS].toReversed());
    const putting = service.putList(DIGEST, swapped, { upload: UPLOAD });
    await expect(putting).rejects.toMatchObject({ code: "data_loss" });
    expect(await service.has(DIGEST)).toBe(false);
  });

  it.each([
    ["a part is missing", [0, 2]],
    ["the first part is missing", [1, 2]],
    ["the last part is missing", [0, 1]],
  ])("is read where %s", async (_, sent) => {
    await using service = await open();
    for (const i of PARTS.keys()) {
      const { part, ...batch } = batchOf(i);
      await service.putFrames(sent.includes(i) ? { ...batch, part } : batch);
    }
    await expectRead(service);
  });

  it("is hashed once where a part comes again", async () => {
    await using service = await open();
    for (const i of [0, 0, 1, 0, 1, 2, 2]) await service.putFrames(batchOf(i));
    await expectUnread(service);
  });

  it("is read where the frame of a part was refused, which may then come again", async () => {
    await using service = await open();
    await service.putFrames(batchOf(0));
    const { frames, ...batch } = batchOf(1);
    const wrong = frames.with(2, frames[1]!);
    const refused = service.putFrames({ ...batch, frames: wrong });
    await expect(refused).rejects.toMatchObject({ code: "invalid_argument" });
    for (const i of [1, 2]) await service.putFrames(batchOf(i));
    await expectRead(service);
  });

  it("is hashed where a part was cancelled that waited for those before it, and came again", async () => {
    await using service = await open();
    const controller = new AbortController();
    const waiting = service.putFrames(batchOf(1), { signal: controller.signal });
    waiting.catch(() => undefined); // it is looked at below
    controller.abort(new Error("no longer wanted"));
    await expect(waiting).rejects.toThrow("no longer wanted");
    for (const i of PARTS.keys()) await service.putFrames(batchOf(i));
    await expectUnread(service);
  });

  it("is read where too many other uploads were begun meanwhile", async () => {
    await using service = await open();
    await service.putFrames(batchOf(0));
    for (let i = 0; i < 64; i++) await service.putFrames(batchOf(0, name(100 + i)));
    for (const i of [1, 2]) await service.putFrames(batchOf(i));
    await expectRead(service);
  });

  it("is stored by its chunks where one of them is too long to be hashed so", async () => {
    await using service = await open();
    const long = [[new Uint8Array(8 * 1024 * KIB)], PARTS[0]!];
    for (const i of long.keys()) await service.putFrames(batchOf(i, UPLOAD, long));
    const digest = blake3Digest(Buffer.concat(long.flat()));
    await service.putList(digest, listOf(long.flat()), { upload: UPLOAD });
    expect(await service.has(digest)).toBe(true);
  });
});
