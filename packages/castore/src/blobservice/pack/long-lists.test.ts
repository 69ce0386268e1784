import { readFileSync, rmSync } from "node:fs";
import Sqlite from "better-sqlite3";
import { describe, expect, it } from "vitest";
import { flipBit, PackStore, readBack } from "../../../test/pack-store.ts";
import { equalBytes } from "../../bytes/byte-string.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { ChunkList, ChunkListBuilder } from "../chunk-list.ts";
import { putBlob } from "../put-blob.ts";
import { storedList } from "./format.ts";

const store = new PackStore();

/** So many that a list of them killed the thread that commits, as objects. */
const MANY = 300_000;

/** Two chunks in turn: none follows its like. */
const PAIR = [Buffer.from("even "), Buffer.from("odd ")] as const;
const PAIR_LENGTH = PAIR[0].length + PAIR[1].length;

/** The contents and the list of a blob of the two in turn. */
function inTurn(count: number): { contents: Buffer; chunks: ChunkList } {
  const builder = new ChunkListBuilder();
  const digests = PAIR.map(blake3Digest);
  for (let i = 0; i < count; i++) builder.push(digests[i % 2]!, PAIR[i % 2]!.length);
  const contents = Buffer.alloc((count / 2) * PAIR_LENGTH, Buffer.concat(PAIR));
  return { contents, chunks: builder.finish() };
}

function changeIndex(sql: string, ...values: unknown[]): void {
  const index = new Sqlite(store.index);
  index.prepare(sql).run(...values);
  index.close();
}

describe("a blob of very many chunks", () => {
  const { contents, chunks } = inTurn(MANY);
  const digest = blake3Digest(contents);

  it("is stored by its list, opened and read at any offset, now and later", async () => {
    {
      await using service = await store.open();
      await service.putMany(PAIR);
      await service.putList(digest, chunks, { proven: true });
      expect(await service.has(digest)).toBe(true);
    }
    await using service = await store.open();
    expect(await service.statMany([digest])).toEqual([{ size: contents.length, chunks: MANY }]);
    await using reader = (await service.open(digest))!;
    expect(reader.chunks.equals(chunks)).toBe(true);
    for (const offset of [0, 7, 18_431 * PAIR_LENGTH, contents.length >> 1, contents.length - 3]) {
      const found = await reader.read(offset, 20);
      expect(equalBytes(found, contents.subarray(offset, offset + 20))).toBe(true);
    }
    const around = await service.read(digest, { offset: 1_000_000, length: 50 });
    const found = Buffer.concat(await Array.fromAsync(around!));
    expect(found.equals(contents.subarray(1_000_000, 1_000_050))).toBe(true);
  });
});

describe("a list of more than one row", () => {
  const { contents, chunks } = inTurn(8_200);
  const digest = blake3Digest(contents);

  async function put(): Promise<void> {
    await using service = await store.open();
    await service.putMany(PAIR);
    await service.putList(digest, chunks, { proven: true });
  }

  it("is refused with the chunk that is absent, wherever that is in the list", async () => {
    await using service = await store.open();
    await service.putMany(PAIR);
    const builder = new ChunkListBuilder();
    builder.append(chunks.bytes); // more than are looked up in one transaction
    const absent = blake3Digest(Buffer.from("absent"));
    builder.push(absent, 6);
    const other = blake3Digest(Buffer.from("other"));
    await expect(service.putList(other, builder.finish(), { proven: true })).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringContaining(`${absent}`),
    });
    expect(await service.has(other)).toBe(false);
  });

  it("is in the new index that is made of the packs", async () => {
    await put();
    rmSync(store.index);
    await using service = await store.open({ onCorrupt: () => undefined });
    expect(equalBytes(await readBack(service, digest), contents)).toBe(true);
    expect((await service.open(digest))!.chunks.equals(chunks)).toBe(true);
  });

  it.each([
    [
      "has a row of another list",
      "UPDATE lists SET chunks = ? WHERE first = 4096",
      [ChunkList.of([...inTurn(4096).chunks].toReversed()).bytes],
    ],
    ["lacks a row", "DELETE FROM lists WHERE first = 8192", []],
    ["has a row that is no list", "UPDATE lists SET chunks = x'00' WHERE first = 4096", []],
    ["is of another length", "UPDATE blobs SET size = size + 1", []],
    ["has another number of chunks", "UPDATE blobs SET count = count - 1", []],
    ["has a number of chunks that none can have", "UPDATE blobs SET count = 9007199254740991", []],
  ])("that %s is told once, and heals when it is put again", async (_, sql, values) => {
    await put();
    changeIndex(sql, ...values);
    {
      const { service, reports } = await store.openReporting();
      await using _service = service;
      await expect(service.open(digest)).rejects.toMatchObject({ code: "data_loss" });
      expect(await service.has(digest)).toBe(false);
      expect(await service.open(digest)).toBeUndefined();
      expect(reports).toHaveLength(1);
    }
    await put();
    await using service = await store.open();
    expect(equalBytes(await readBack(service, digest), contents)).toBe(true);
  });

  it("is forgotten with a chunk that is lost, in whatever row that is", async () => {
    const rare = Buffer.from("one that is in the third row alone");
    const entries = [...inTurn(8_200).chunks];
    entries[8_193] = { digest: blake3Digest(rare), size: rare.length };
    const list = ChunkList.of(entries);
    const blob = blake3Digest(Buffer.from("whatever"));
    await put();
    {
      await using service = await store.open();
      await service.putMany([rare]);
      await service.putList(blob, list, { proven: true });
    }
    flipBit(store.packOf(), readFileSync(store.packOf()).indexOf(rare));
    const { service, reports } = await store.openReporting();
    await using _service = service;
    await using reader = (await service.open(blob))!;
    const at = list.offsetAt(8_193);
    await expect(reader.read(at, 1)).rejects.toMatchObject({ code: "data_loss" });
    expect(await service.hasMany([blob, digest])).toEqual([false, true]);
    expect(reports).toHaveLength(1);
    await service.putMany([rare]);
    await service.putList(blob, list, { proven: true });
    const found = await (await service.open(blob))!.read(at, rare.length);
    expect(equalBytes(found, rare)).toBe(true);
  });

  it("is stored by a writer, with chunks that are committed along with it", async () => {
    const zeros = new Uint8Array(1024 * 1024);
    const tail = Buffer.from("the end");
    await using service = await store.open({ averageChunkSize: 2 ** 14 });
    await using writer = service.openWriter();
    for (let i = 0; i < 640; i++) await writer.write(zeros); // chunks of 32 KiB, all the same
    await writer.write(tail);
    const sparse = await writer.close();
    await using reader = (await service.open(sparse))!;
    expect(reader.chunks.length).toBe(640 * 32 + 1);
    expect(reader.size).toBe(640 * zeros.length + tail.length);
    const found = await reader.read(reader.size - 10, 10);
    expect(Buffer.from(found).equals(Buffer.concat([Buffer.alloc(3), tail]))).toBe(true);
  });
});

describe("an open reader", () => {
  it("reads no list again", async () => {
    const { contents, chunks } = inTurn(10_000);
    await using service = await store.open();
    await service.putMany(PAIR);
    const digest = blake3Digest(contents);
    await service.putList(digest, chunks);
    await using reader = (await service.open(digest))!;
    changeIndex("DELETE FROM lists");
    for (let offset = 0; offset + 100 < contents.length; offset += 7919) {
      const found = await reader.read(offset, 100);
      expect(equalBytes(found, contents.subarray(offset, offset + 100))).toBe(true);
    }
  });
});

describe("looking up very many digests", () => {
  it("lets other events have their turn", async () => {
    await using service = await store.open();
    const digest = await putBlob(service, Buffer.from("found"));
    const asked = Array.from({ length: 16_384 }, () => digest);
    for (const call of ["hasMany", "statMany"] as const) {
      let turns = 0;
      let isOver = false;
      const count = () => {
        turns += 1;
        if (!isOver) setImmediate(count);
      };
      setImmediate(count);
      expect(await service[call](asked)).toHaveLength(16_384);
      isOver = true;
      expect(turns).toBeGreaterThanOrEqual(16);
    }
  });
});

it("refuses a list that does not fit into a record", () => {
  const digest = blake3Digest(Buffer.from("huge"));
  const huge = { length: 120_000_000, bytes: { length: 120_000_000 * 36 } };
  expect(() => storedList(digest, huge as ChunkList)).toThrow(
    expect.objectContaining({ code: "resource_exhausted" }),
  );
});
