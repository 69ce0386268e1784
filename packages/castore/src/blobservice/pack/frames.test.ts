import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import Sqlite from "better-sqlite3";
import { describe, expect, it } from "vitest";
import { chunksOf } from "../../../test/chunks-of.ts";
import { noise } from "../../../test/noise.ts";
import { flipBit, PackStore } from "../../../test/pack-store.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { ChunkList } from "../chunk-list.ts";

const store = new PackStore();
const TEXT = Buffer.alloc(100_000, "compressible ");
const NOISE = noise(100_000);
const CHUNKS = ChunkList.of(
  [TEXT, NOISE].map((data) => ({ digest: blake3Digest(data), size: data.length })),
);

/** Where the payload of the first record in a pack starts. */
const FIRST_PAYLOAD = 52;

describe("frames from packs", () => {
  it("are the bytes that are stored, and only raw chunks are framed", async () => {
    await using service = await store.open();
    await service.putMany([TEXT]);
    await service.putMany([NOISE]);
    const [text, raw] = (await Array.fromAsync(service.frames(CHUNKS))) as [Uint8Array, Uint8Array];
    const pack = readFileSync(store.packOf());
    expect(pack.indexOf(Buffer.from(text))).toBe(FIRST_PAYLOAD);
    expect(zstdDecompressSync(text).equals(TEXT)).toBe(true);
    expect(pack.includes(Buffer.from(raw))).toBe(false);
    expect(Buffer.from(raw).includes(NOISE)).toBe(true); // one block
    expect(zstdDecompressSync(raw).equals(NOISE)).toBe(true);
  });

  it("come in order from many packs, of blobs of many chunks", async () => {
    await using service = await store.open({ maxPackSize: 700_000 });
    const contents = Buffer.concat([noise(3_000_000, 1), Buffer.alloc(2_000_000, "and more ")]);
    const [digest] = await service.putMany([contents]);
    const chunks = ChunkList.of((await chunksOf(service, digest!))!.toReversed());
    const frames = await Array.fromAsync(service.frames(chunks));
    const parts = frames.map((frame) => zstdDecompressSync(frame)).toReversed();
    expect(Buffer.concat(parts).equals(contents)).toBe(true);
  });

  it.each([
    ["states another length", (file: string) => flipBit(file, FIRST_PAYLOAD + 6)],
    ["is no frame", (file: string) => flipBit(file, FIRST_PAYLOAD)],
    ["is cut off", (file: string) => truncateSync(file, FIRST_PAYLOAD + 10)],
  ])("are refused where one %s, and heal when it is put again", async (_, damage) => {
    await using service = await store.open({ onCorrupt: () => undefined });
    await service.putMany([TEXT]);
    damage(store.packOf());
    const only = ChunkList.of([CHUNKS.at(0)]);
    const frames = Array.fromAsync(service.frames(only));
    await expect(frames).rejects.toMatchObject({ code: "data_loss" });
    expect(await service.hasMany([CHUNKS.digestAt(0)])).toEqual([false]);
    await service.putMany([TEXT]);
    const [healed] = await Array.fromAsync(service.frames(only));
    expect(zstdDecompressSync(healed!).equals(TEXT)).toBe(true);
  });

  it.each([
    ["by the checksum in the index", undefined],
    ["by its contents where there is none", 0],
    ["by its contents where that is one of an early version", 2 ** 52 - 1],
  ])("are verified: one that was damaged is refused, %s, and heals", async (_, checksum) => {
    const messages: string[] = [];
    await using service = await store.open({ onCorrupt: (message) => messages.push(message) });
    await service.putMany([TEXT]);
    await service.putMany([NOISE]);
    const read = async () => {
      const frames: Uint8Array[] = [];
      for await (const batch of service.verifiedFrames(CHUNKS)) {
        frames.push(...batch.map((frame) => frame.slice())); // only lent
      }
      return frames;
    };
    if (checksum !== undefined) {
      const index = new Sqlite(store.index);
      index.exec(`UPDATE chunks SET checksum = ${checksum}`);
      index.close();
    }
    expect((await read()).map((frame) => zstdDecompressSync(frame))).toEqual([TEXT, NOISE]);
    const frame = (await Array.fromAsync(service.frames(CHUNKS)))[0]!;
    // The contents are another text of the same length, so that the frame looks right.
    const pack = readFileSync(store.packOf());
    const other = frameOf(Buffer.alloc(TEXT.length, "incorrigible "), frame.length);
    writeFileSync(store.packOf(), pack.fill(other, FIRST_PAYLOAD, FIRST_PAYLOAD + frame.length));
    expect((await Array.fromAsync(service.frames(CHUNKS)))[0]).toEqual(new Uint8Array(other));
    await expect(read()).rejects.toMatchObject({ code: "data_loss" });
    expect(messages).toHaveLength(1);
    await service.putMany([TEXT]);
    expect(zstdDecompressSync((await read())[0]!).equals(TEXT)).toBe(true);
  });
});

/** Compresses contents into a frame of that length. */
function frameOf(data: Buffer, length: number): Buffer {
  const frame = zstdCompressSync(data, { pledgedSrcSize: data.length });
  expect(frame.length).toBe(length);
  return frame;
}

it("small blobs come as they are stored: as frames where that is shorter", async () => {
  await using service = await store.open();
  await service.putMany([TEXT, NOISE]);
  const [text, raw] = await service.readManyStored([...CHUNKS]);
  expect(zstdDecompressSync((text as { frame: Uint8Array }).frame).equals(TEXT)).toBe(true);
  expect(NOISE.equals((raw as { contents: Uint8Array }).contents)).toBe(true);
});
