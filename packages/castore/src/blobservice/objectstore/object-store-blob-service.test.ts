import { zstdCompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { chunksOf } from "../../../test/chunks-of.ts";
import { noise } from "../../../test/noise.ts";
import { dataLoss, open, readBack } from "../../../test/object-store-blobs.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MemoryObjectStore } from "../../objectstore/memory.ts";
import { objectKey } from "../../objectstore/object-key.ts";
import { putBlob } from "../put-blob.ts";
import { ObjectStoreBlobService } from "./object-store-blob-service.ts";

const LARGE = noise(2_000_000);

describe("ObjectStoreBlobService", () => {
  it.each([
    ["garbage", Buffer.from("garbage")],
    ["nothing", Buffer.alloc(0)],
    ["another chunk", zstdCompressSync(Buffer.from("another"))],
    ["a frame that inflates to a gigabyte", zstdCompressSync(Buffer.alloc(1_000_000_000))],
  ])("tells %s in place of a chunk, and is healed by putting the blob again", async (_, frame) => {
    const { store, service, warnings } = open();
    const digest = await putBlob(service, LARGE);
    const [, second] = (await chunksOf(service, digest))!;
    await store.put(objectKey("chunks", second!.digest), frame);
    await expect(readBack(service, digest)).rejects.toThrow(dataLoss);
    expect(warnings.join()).toContain(second!.digest.hex);
    expect(await service.hasMany([second!.digest, digest])).toEqual([false, false]);
    expect(await service.read(digest)).toBeUndefined();
    expect(await chunksOf(service, digest)).toBeUndefined();
    await putBlob(service, LARGE);
    expect(Buffer.compare(await readBack(service, digest), LARGE)).toBe(0);
    expect(await service.hasMany([second!.digest, digest])).toEqual([true, true]);
  });

  it("tells a blob that is one damaged chunk", async () => {
    const { store, service } = open();
    const digest = await putBlob(service, Buffer.from("contents"));
    await store.put(objectKey("chunks", digest), Buffer.from("garbage"));
    await expect(service.read(digest)).rejects.toThrow(dataLoss);
    expect(await service.read(digest)).toBeUndefined();
    expect(await chunksOf(service, digest)).toBeUndefined();
    expect(await service.has(digest)).toBe(false);
    await service.putMany([Buffer.from("contents")]);
    expect(Buffer.from(await readBack(service, digest)).toString()).toBe("contents");
  });

  it("counts a blob as absent whose list of chunks is damaged", async () => {
    const { store, service, warnings } = open();
    const digest = await putBlob(service, LARGE);
    await store.put(objectKey("blobs", digest), Buffer.from("garbage"));
    expect(await chunksOf(service, digest)).toBeUndefined();
    expect(warnings.join()).toContain("its list of chunks is damaged");
    await putBlob(service, LARGE);
    expect(Buffer.compare(await readBack(service, digest), LARGE)).toBe(0);
  });

  it.each([
    ["a damaged chunk", (store: MemoryObjectStore, key: string) => store.put(key, LARGE)],
    ["a chunk that is gone", (store: MemoryObjectStore, key: string) => store.delete(key)],
  ])("has other processes heal %s that this one has met", async (_, damage) => {
    const { store, service } = open();
    const small = Buffer.from("contents");
    const [single] = await service.putMany([small]);
    const digest = await putBlob(service, LARGE);
    const [, second] = (await chunksOf(service, digest))!;
    for (const chunk of [single!, second!.digest]) await damage(store, objectKey("chunks", chunk));
    await expect(service.read(single!)).rejects.toThrow(dataLoss);
    await expect(readBack(service, digest)).rejects.toThrow(dataLoss);
    const { service: other } = open(store);
    expect(await other.hasMany([single!, digest, second!.digest])).toEqual([false, false, false]);
    await putBlob(open(store).service, LARGE);
    await open(store).service.putMany([small]);
    for (const process of [service, other, open(store).service]) {
      expect(await process.hasMany([single!, digest, second!.digest])).toEqual([true, true, true]);
      expect(Buffer.compare(await readBack(process, digest), LARGE)).toBe(0);
      expect(Buffer.from(await readBack(process, single!)).toString()).toBe("contents");
    }
    expect(await Array.fromAsync(store.list("damaged/"))).toEqual([]);
  });

  it("has again what came back damaged for a while, once it is read", async () => {
    const { store, service } = open();
    const [single] = await service.putMany([Buffer.from("contents")]);
    const digest = await putBlob(service, LARGE);
    const get = store.get.bind(store);
    store.get = async (key, options) => {
      const isChunk = key.startsWith("chunks/");
      return await get(key, isChunk ? { ...options, offset: 1 } : options);
    };
    await expect(service.read(single!)).rejects.toThrow(dataLoss);
    await expect(readBack(service, digest)).rejects.toThrow(dataLoss);
    expect(await service.hasMany([single!, digest])).toEqual([false, false]);
    store.get = get;
    expect(Buffer.from(await readBack(service, single!)).toString()).toBe("contents");
    expect(await chunksOf(service, digest)).toBeDefined();
    expect(await open(store).service.hasMany([single!, digest])).toEqual([true, true]);
    expect(await Array.fromAsync(store.list("damaged/"))).toEqual([]);
  });

  it("takes no blob for stored of which a chunk is found damaged while it is put", async () => {
    const { store, service } = open();
    const digest = await putBlob(service, LARGE);
    const [first] = (await chunksOf(service, digest))!;
    const longer = Buffer.concat([LARGE, Buffer.from("and more")]);
    const lookedUp = Promise.withResolvers<void>();
    const head = store.head.bind(store);
    store.head = async (key, ...rest) => {
      const found = await head(key, ...rest);
      if (key === objectKey("chunks", first!.digest)) lookedUp.resolve();
      return found;
    };
    await using writer = service.openWriter();
    await writer.write(longer);
    await lookedUp.promise;
    await store.put(objectKey("chunks", first!.digest), Buffer.from("garbage"));
    await expect(readBack(service, digest)).rejects.toThrow(dataLoss);
    await expect(writer.close()).rejects.toMatchObject({ code: "aborted" });
    expect(await service.has(blake3Digest(longer))).toBe(false);
    await putBlob(service, longer);
    expect(Buffer.compare(await readBack(service, blake3Digest(longer)), longer)).toBe(0);
  });

  it("sees that another process has put again what was damaged", async () => {
    const { store, service } = open();
    const other = new ObjectStoreBlobService({ store });
    const small = Buffer.from("contents");
    const [digest] = await service.putMany([small]);
    const large = await putBlob(service, LARGE);
    const [first] = (await chunksOf(service, large))!;
    for (const chunk of [digest!, first!.digest]) {
      await store.put(objectKey("chunks", chunk), Buffer.from("garbage"));
    }
    await expect(service.read(digest!)).rejects.toThrow(dataLoss);
    await expect(readBack(service, large)).rejects.toThrow(dataLoss);
    expect(await service.hasMany([digest!, large])).toEqual([false, false]);
    for (const blob of [small, LARGE]) {
      const opened = new ObjectStoreBlobService({ store, onCorrupt: () => undefined });
      await expect(readBack(opened, blake3Digest(blob))).rejects.toThrow(dataLoss);
      await putBlob(opened, blob);
    }
    expect(await service.hasMany([digest!, large])).toEqual([true, true]);
    expect(Buffer.from(await readBack(service, digest!)).toString()).toBe("contents");
    expect(Buffer.compare(await readBack(service, large), LARGE)).toBe(0);
    expect(Buffer.compare(await readBack(other, large), LARGE)).toBe(0);
  });

  it("reads no more of an object than a chunk can have", async () => {
    const { store, service } = open();
    const [digest] = await service.putMany([Buffer.from("contents")]);
    let bytes = 0;
    const endless = async function* () {
      for (;;) {
        bytes += 65_536;
        yield Buffer.alloc(65_536);
      }
    };
    store.get = async () => Object.assign(endless(), { version: "1" });
    const found = await service.readMany([{ digest: digest!, size: 8 }]);
    expect(found).toEqual([undefined]);
    expect(bytes).toBe(65_536);
    await expect(service.read(digest!)).rejects.toThrow(dataLoss);
    expect(bytes).toBeLessThan(100 * 1024 * 1024); // chunk and list have an end
  });

  it("takes no blob for damaged that is asked for by another length", async () => {
    const { service, warnings } = open();
    const small = Buffer.alloc(100_000, 1);
    const digests = await service.putMany([small, LARGE]);
    for (const size of [1, 99_999, 100_001, 3_000_000]) {
      const found = await service.readMany(digests.map((digest) => ({ digest, size })));
      expect(found).toEqual([undefined, undefined]);
    }
    expect(warnings).toEqual([]);
    expect(await service.hasMany(digests)).toEqual([true, true]);
  });

  it("tells a chunk that is gone", async () => {
    const { store, service } = open();
    const digest = await putBlob(service, LARGE);
    const [first] = (await chunksOf(service, digest))!;
    await store.delete(objectKey("chunks", first!.digest));
    await expect(readBack(service, digest)).rejects.toThrow(dataLoss);
  });

  it("sends no chunk that is there", async () => {
    const { store, service } = open();
    await putBlob(service, LARGE);
    const sent: string[] = [];
    const put = store.put.bind(store);
    store.put = (key, ...rest) => {
      sent.push(key);
      return put(key, ...rest);
    };
    const longer = Buffer.concat([LARGE, Buffer.from("and more")]);
    const digest = await putBlob(service, longer);
    expect(sent.filter((key) => key.startsWith("chunks/"))).toHaveLength(1);
    sent.length = 0;
    await service.putMany([Buffer.from("small"), longer, Buffer.from("small")]);
    expect(sent).toHaveLength(2);
    expect(await service.has(digest)).toBe(true);
  });

  it("stores no blob of which a chunk failed", async () => {
    const { store, service } = open();
    let count = 0;
    const put = store.put.bind(store);
    store.put = (key, ...rest) => {
      if (count++ === 3) return Promise.reject(new CastoreError("unavailable", "it is gone"));
      return put(key, ...rest);
    };
    await expect(putBlob(service, LARGE)).rejects.toMatchObject({ code: "unavailable" });
    expect(await service.has(blake3Digest(LARGE))).toBe(false);
    await putBlob(service, LARGE);
    expect(Buffer.compare(await readBack(service, blake3Digest(LARGE)), LARGE)).toBe(0);
  });

  it("refuses a chunk size that is not offered", () => {
    const store = new MemoryObjectStore();
    const create = () => new ObjectStoreBlobService({ store, averageChunkSize: 1000 });
    expect(create).toThrow("power of two");
  });
});
