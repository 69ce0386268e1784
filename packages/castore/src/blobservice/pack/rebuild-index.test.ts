import {
  cpSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { describe, expect, it } from "vitest";
import { chunksOf } from "../../../test/chunks-of.ts";
import { noise } from "../../../test/noise.ts";
import { flipBit, PackStore, readBack } from "../../../test/pack-store.ts";
import { collectBytes, equalBytes } from "../../bytes/byte-string.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import type { B3Digest } from "../../model/digest.ts";
import { putBlob } from "../put-blob.ts";
import type { PackBlobService, PackOptions } from "./pack-blob-service.ts";

const store = new PackStore();

async function expectAll(
  service: PackBlobService,
  digests: readonly B3Digest[],
  contents: readonly Uint8Array[],
) {
  for (const [i, digest] of digests.entries()) {
    expect(equalBytes(await readBack(service, digest), contents[i]!)).toBe(true);
  }
}

describe("an index that is lost", () => {
  const LARGE = noise(3_000_000, 7);
  const contents = [LARGE, Buffer.from("small"), Buffer.alloc(0), noise(400_000, 8)];
  const lose = () => rmSync(store.index);
  const silent = { onCorrupt: () => undefined };

  async function storeAll(options: Partial<PackOptions> = {}): Promise<B3Digest[]> {
    await using service = await store.open(options);
    const digests: B3Digest[] = [];
    for (const data of contents) digests.push(...(await service.putMany([data])));
    return digests;
  }

  it.each([
    ["one pack", {}],
    ["many packs", { maxPackSize: 500_000 }],
  ])("is made anew from %s, and written to", async (_, options) => {
    const digests = await storeAll(options);
    lose();
    {
      const { service, reports } = await store.openReporting();
      await using _service = service;
      await expectAll(service, digests, contents);
      expect(await chunksOf(service, digests[0]!)).not.toHaveLength(0);
      expect(reports).toEqual([expect.stringContaining("a new one is made from the packs")]);
      await putBlob(service, Buffer.from("more"));
    }
    await using service = await store.open();
    await expectAll(service, digests, contents);
    expect(await service.has(blake3Digest(Buffer.from("more")))).toBe(true);
    expect(readdirSync(store.path).filter((name) => name.includes("rebuild"))).toEqual([]);
  });

  it.each([
    ["empty", () => truncateSync(store.index, 0)],
    [
      "without a schema",
      () => {
        lose();
        const database = new Sqlite(store.index);
        database.pragma("journal_mode = WAL");
        database.close();
      },
    ],
  ])("is made anew when it is %s, and no pack is written over", async (_, lose) => {
    const digests = await storeAll();
    const pack = readFileSync(store.packOf());
    lose();
    {
      const { service, reports } = await store.openReporting();
      await using _service = service;
      expect(reports).toEqual([expect.stringContaining("a new one is made from the packs")]);
      await putBlob(service, Buffer.from("more"));
      await expectAll(service, digests, contents);
    }
    expect(readFileSync(store.packOf()).subarray(0, pack.length).equals(pack)).toBe(true);
    await using service = await store.open();
    await expectAll(service, digests, contents);
  });

  it("stays lost when making it anew is broken off", async () => {
    const digests = await storeAll({ maxPackSize: 500_000 });
    lose();
    const controller = new AbortController();
    const reason = new Error("enough");
    const opening = store.open({
      signal: controller.signal,
      onCorrupt: () => controller.abort(reason),
    });
    await expect(opening).rejects.toBe(reason);
    await using service = await store.open(silent);
    await expectAll(service, digests, contents);
  });

  it("is made once by several who open the store", async () => {
    const digests = await storeAll();
    lose();
    const reports: string[] = [];
    const onCorrupt = (message: string) => void reports.push(message);
    const services = await Promise.all(Array.from({ length: 4 }, () => store.open({ onCorrupt })));
    for (const service of services) await expectAll(service, digests, contents);
    expect(reports).toHaveLength(1);
    for (const service of services) await service[Symbol.asyncDispose]();
  });

  it("is made of what is whole in a pack that breaks off, which is then overwritten", async () => {
    const digests = await storeAll();
    lose();
    truncateSync(store.packOf(), statSync(store.packOf()).size - 1000);
    {
      const { service, reports } = await store.openReporting();
      await using _service = service;
      await expectAll(service, digests.slice(0, 3), contents);
      expect(await service.has(digests[3]!)).toBe(false);
      expect(reports.join()).toContain("is damaged at");
      await putBlob(service, contents[3]!);
    }
    lose();
    await using service = await store.open(silent);
    await expectAll(service, digests, contents);
  });

  it("is made of what is whole before and behind a flipped bit", async () => {
    const digests = await storeAll();
    lose();
    flipBit(store.packOf(), 100_000); // in a chunk of the first blob
    const { service, reports } = await store.openReporting();
    await using _service = service;
    expect(await service.has(digests[0]!)).toBe(false);
    expect(equalBytes(await readBack(service, digests[1]!), contents[1]!)).toBe(true);
    expect(equalBytes(await readBack(service, digests[3]!), contents[3]!)).toBe(true);
    expect(reports.join()).toMatch(/damaged at.*is left out: chunk/s);
    await putBlob(service, contents[0]!);
    await expectAll(service, digests, contents);
  });

  /** Where the record of the only blob of several chunks stands in the only pack, and its length. */
  function findRecord(): { at: number; length: number } {
    const bytes = readFileSync(store.packOf());
    const at = bytes.indexOf("TVXb");
    return { at, length: 52 + bytes.readUInt32LE(at + 8) };
  }

  it("never gives other bytes than were put, whichever bit of the record of a blob flipped", async () => {
    const options = { averageChunkSize: 2 ** 14, ...silent };
    const data = noise(150_000, 9);
    const digest = await (async () => {
      await using service = await store.open(options);
      return await putBlob(service, data);
    })();
    const pack = readFileSync(store.packOf());
    const { at, length } = findRecord();
    const sizes = Array.from({ length: (length - 52) / 36 }, (_, i) => 52 + i * 36 + 32);
    const others = Array.from({ length: 8 }, (_, i) => noise(4, i).readUInt32LE() % length);
    for (const [i, position] of [...sizes, ...others].entries()) {
      writeFileSync(store.packOf(), pack);
      flipBit(store.packOf(), at + position, i % 8);
      lose();
      {
        await using service = await store.open(options);
        expect(await service.has(digest), `flipped at ${position}`).toBe(false);
        await putBlob(service, data);
        const part = await service.read(digest, { offset: 100_000, length: 100 });
        const found = await collectBytes(part!);
        expect(equalBytes(found, data.subarray(100_000, 100_100))).toBe(true);
        expect(equalBytes(await readBack(service, digest), data)).toBe(true);
      }
      lose(); // the record that was put again counts, not the damaged one before it
      await using service = await store.open(options);
      expect(equalBytes(await readBack(service, digest), data)).toBe(true);
    }
  });

  it("leaves out a blob whose chunks are all whole, but not those that make it up", async () => {
    const digests = await storeAll();
    lose();
    const bytes = readFileSync(store.packOf());
    const list = bytes.subarray(findRecord().at + 52);
    const [first, second] = [Buffer.from(list.subarray(0, 36)), list.subarray(36, 72)];
    list.set(second, 0);
    list.set(first, 36);
    writeFileSync(store.packOf(), bytes);
    const { service, reports } = await store.openReporting();
    await using _service = service;
    expect(await service.has(digests[0]!)).toBe(false);
    expect(reports.join()).toContain(`Blob ${digests[0]} is left out: its chunks make up`);
    await putBlob(service, contents[0]!);
    await expectAll(service, digests, contents);
  });

  it("is not mixed up with what was left of the one that is gone", async () => {
    const digests = await storeAll();
    lose();
    writeFileSync(join(store.path, "index.sqlite-wal"), noise(40_000));
    await using service = await store.open(silent);
    await expectAll(service, digests, contents);
  });
});

describe("an index that a power failure has set back", () => {
  const FILES = ["", "-wal"];

  /** Keeps the index as it is, while a service has it open. Returns what puts it back. */
  function keepIndex(): () => void {
    for (const end of FILES) cpSync(store.index + end, `${store.index}-kept${end}`);
    return () => {
      for (const end of FILES) cpSync(`${store.index}-kept${end}`, store.index + end);
      rmSync(`${store.index}-shm`, { force: true });
    };
  }

  const SMALL = Array.from({ length: 40 }, (_, i) => noise(1000 + i * 400, 100 + i));

  /** Stores blobs one after the other, of which the index then lacks all but the first. */
  async function storeAndSetBack(options: Partial<PackOptions> = {}): Promise<B3Digest[]> {
    let setBack = () => {};
    const digests: B3Digest[] = [];
    {
      await using service = await store.open(options);
      for (const data of SMALL) {
        digests.push(...(await service.putMany([data])));
        if (digests.length === 1) setBack = keepIndex();
      }
    }
    setBack();
    return digests;
  }

  it.each([
    ["one pack", {}],
    ["many packs", { maxPackSize: 50_000 }],
  ])("has all blobs of one chunk again, from %s", async (_, options) => {
    const digests = await storeAndSetBack(options);
    const contents = [...SMALL];
    for (const more of ["more", "still more"].map((text) => Buffer.from(text))) {
      const { service, reports } = await store.openReporting();
      await using _service = service;
      await expectAll(service, digests, contents);
      digests.push(await putBlob(service, more));
      contents.push(more);
      expect(reports).toEqual([]);
    }
  });

  it("has those before a record that is torn, and is written to", async () => {
    const digests = await storeAndSetBack();
    truncateSync(store.packOf(), statSync(store.packOf()).size - 100);
    const torn = digests.pop()!;
    const last = SMALL[digests.length]!;
    for (let round = 0; round < 2; round++) {
      await using service = await store.open();
      await expectAll(service, digests, SMALL);
      expect(await service.has(torn)).toBe(round === 1);
      await service.putMany([last]);
      expect(equalBytes(await readBack(service, torn), last)).toBe(true);
    }
  });

  it("has no chunk of a blob whose writer did not finish", async () => {
    let setBack = () => {};
    const LARGE = noise(8_000_000, 9);
    const chunks: B3Digest[] = [];
    {
      await using service = await store.open();
      await service.putMany([SMALL[0]!]);
      setBack = keepIndex();
      {
        await using writer = service.openWriter();
        await writer.write(LARGE);
      }
      const digest = await putBlob(service, LARGE);
      chunks.push(...(await chunksOf(service, digest))!.map((chunk) => chunk.digest));
    }
    setBack();
    await using service = await store.open();
    expect(chunks.length).toBeGreaterThan(4);
    for (const digest of chunks) expect(await service.has(digest)).toBe(false);
  });
});
