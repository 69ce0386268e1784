import { createZstdCompress, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { chunksOf } from "../../../test/chunks-of.ts";
import { noise } from "../../../test/noise.ts";
import { dataLoss, open, readBack } from "../../../test/object-store-blobs.ts";
import { collectBytes } from "../../bytes/byte-string.ts";
import { contentSizeOf } from "../../compression/zstd-frame.ts";
import { blake3 } from "../../hash/blake3.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MemoryObjectStore } from "../../objectstore/memory.ts";
import { objectKey } from "../../objectstore/object-key.ts";
import { ChunkList, ChunkListBuilder } from "../chunk-list.ts";
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
    expect(warnings.join()).toContain("Cannot decode a list of chunks");
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
    if (await store.head(objectKey("chunks", single!))) {
      await expect(service.read(single!)).rejects.toThrow(dataLoss);
    }
    expect(await service.read(single!)).toBeUndefined();
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
  });

  it("deletes nothing that comes back damaged once, and whole the next time", async () => {
    const { store, service, warnings } = open();
    const [single] = await service.putMany([Buffer.from("contents")]);
    const digest = await putBlob(service, LARGE);
    const get = store.get.bind(store);
    const seen = new Set<string>();
    store.get = async (key, options) => {
      const isFirst = key.startsWith("chunks/") && !seen.has(key);
      seen.add(key);
      return await get(key, isFirst ? { ...options, offset: 1 } : options);
    };
    expect(Buffer.from(await readBack(service, single!)).toString()).toBe("contents");
    expect(Buffer.compare(await readBack(service, digest), LARGE)).toBe(0);
    expect(warnings).toEqual([]);
  });

  it("stores and heals where the store gives no list, or deletes nothing", async () => {
    const { store, service, warnings } = open();
    const refused = () => new CastoreError("permission_denied", "it is not allowed");
    store.list = () => {
      throw refused();
    };
    store.delete = () => Promise.reject(refused());
    const small = Buffer.from("contents");
    const [single] = await service.putMany([small]);
    const digest = await putBlob(service, LARGE);
    const [first] = (await chunksOf(service, digest))!;
    for (const chunk of [single!, first!.digest]) {
      await store.put(objectKey("chunks", chunk), Buffer.from("garbage"));
    }
    for (let i = 0; i < 3; i++) {
      await expect(readBack(service, single!)).rejects.toThrow();
      await expect(readBack(service, digest)).rejects.toThrow();
    }
    expect(warnings).toHaveLength(3); // two chunks and a list, once each
    expect(await service.hasMany([single!, digest])).toEqual([false, false]);
    await service.putMany([small, LARGE]);
    expect(await service.hasMany([single!, digest])).toEqual([true, true]);
    expect(Buffer.from(await readBack(service, single!)).toString()).toBe("contents");
    expect(Buffer.compare(await readBack(service, digest), LARGE)).toBe(0);
  });

  it("puts a list back for whoever stored the missing chunk meanwhile, and relied on it", async () => {
    const { store, service } = open();
    const digest = await putBlob(service, LARGE);
    const [first] = (await chunksOf(service, digest))!;
    await store.delete(objectKey("chunks", first!.digest));
    const remove = store.delete.bind(store);
    store.delete = async (key, options) => {
      await putBlob(open(store).service, LARGE); // finds the list, and stores the chunk alone
      await remove(key, options);
    };
    await expect(readBack(service, digest)).rejects.toThrow(dataLoss);
    expect(await open(store).service.has(digest)).toBe(true);
    expect(Buffer.compare(await readBack(open(store).service, digest), LARGE)).toBe(0);
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
      expect(await opened.read(blake3Digest(blob))).toBeUndefined();
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

  it("keeps a blob of 300,000 chunks, and reads any part of it with one request", async () => {
    const { store, service } = open();
    const pieces = [noise(1000), Buffer.alloc(1001, 7)];
    const digests = await service.putMany(pieces);
    const list = new ChunkListBuilder();
    const hasher = blake3.createHasher();
    for (let i = 0; i < 300_000; i++) {
      const which = i % 7 === 3 ? 1 : 0;
      list.push(digests[which]!, pieces[which]!.length);
      hasher.update(pieces[which]!);
    }
    const chunks = list.finish();
    const digest = B3Digest.fromBytes(hasher.digest());
    await service.putList(digest, chunks, { proven: true });
    const { service: other } = open(store);
    expect(await other.statMany([digest])).toEqual([{ size: chunks.size, chunks: 300_000 }]);
    await using reader = (await other.open(digest))!;
    expect(reader.chunks.equals(chunks)).toBe(true);
    const got: string[] = [];
    const get = store.get.bind(store);
    store.get = (key, ...rest) => {
      got.push(key);
      return get(key, ...rest);
    };
    for (const index of [0, 150_003, 299_999]) {
      const found = await reader.read(chunks.offsetAt(index), 500);
      const expected = pieces[index % 7 === 3 ? 1 : 0]!.subarray(0, 500);
      expect(Buffer.compare(found, expected)).toBe(0);
    }
    expect(got.every((key) => key.startsWith("chunks/"))).toBe(true);
    expect(got.length).toBeLessThan(4);
  });

  it("commits a list of blobs that are cut themselves, and refuses one that lacks a chunk", async () => {
    const { store, service } = open();
    const tail = Buffer.from("and more");
    const [cut, last] = await service.putMany([LARGE, tail]);
    expect((await chunksOf(service, cut!))!.length).toBeGreaterThan(1);
    const whole = Buffer.concat([LARGE, tail]);
    const list = ChunkList.of([
      { digest: cut!, size: LARGE.length },
      { digest: last!, size: tail.length },
    ]);
    await service.putList(blake3Digest(whole), list);
    const { service: other } = open(store);
    expect(Buffer.compare(await readBack(other, blake3Digest(whole)), whole)).toBe(0);
    const absent = blake3Digest(Buffer.from("absent"));
    const lacking = ChunkList.of([...list, { digest: absent, size: 6 }]);
    for (const proven of [false, true]) {
      const putting = service.putList(blake3Digest(tail), lacking, { proven });
      await expect(putting).rejects.toMatchObject({
        code: "not_found",
        message: expect.stringContaining(absent.toString()),
      });
    }
  });

  it("gives frames as they are stored, and those that state no length made anew", async () => {
    const { store, service } = open();
    const pieces = [Buffer.alloc(100_000, 1), noise(70_000), Buffer.from("by the reference")];
    const digests = await service.putMany(pieces);
    // As a stream that does not know how long it is: what the reference writes.
    const stream = createZstdCompress();
    stream.end(pieces[2]);
    await store.put(objectKey("chunks", digests[2]!), await collectBytes(stream));
    const list = ChunkList.of(digests.map((digest, i) => ({ digest, size: pieces[i]!.length })));
    const frames = await Array.fromAsync(service.frames(list));
    const stored = await collectBytes((await store.get(objectKey("chunks", digests[0]!)))!);
    expect(Buffer.compare(frames[0]!, stored)).toBe(0);
    expect(frames.map((frame) => contentSizeOf(frame))).toEqual(pieces.map(({ length }) => length));
    for (const [i, frame] of frames.entries()) {
      expect(Buffer.compare(zstdDecompressSync(frame), pieces[i]!)).toBe(0);
    }
    for (const wrong of [
      { digest: digests[0]!, size: 99_999 },
      { digest: blake3Digest(Buffer.from("absent")), size: 6 },
    ]) {
      const reading = Array.fromAsync(service.frames(ChunkList.of([wrong])));
      await expect(reading).rejects.toThrow(dataLoss);
    }
  });

  it("refuses a chunk size that is not offered", () => {
    const store = new MemoryObjectStore();
    const create = () => new ObjectStoreBlobService({ store, averageChunkSize: 1000 });
    expect(create).toThrow("power of two");
  });
});
