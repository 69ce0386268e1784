import { zstdCompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { noise } from "../../test/noise.ts";
import { collectBytes } from "../bytes.ts";
import { B3Digest } from "../digest.ts";
import { CastoreError } from "../errors.ts";
import { objectKey } from "../object-store/digest-key.ts";
import { MemoryObjectStore } from "../object-store/memory.ts";
import { ObjectStoreBlobService } from "./object-store.ts";
import { putBlob } from "./put-blob.ts";

const LARGE = noise(2_000_000);

function open() {
  const store = new MemoryObjectStore();
  const warnings: string[] = [];
  const service = new ObjectStoreBlobService({ store, onCorrupt: (text) => warnings.push(text) });
  return { store, service, warnings };
}

async function readBack(service: ObjectStoreBlobService, digest: B3Digest): Promise<Uint8Array> {
  return await collectBytes((await service.read(digest))!);
}

const dataLoss = expect.objectContaining({ name: "CastoreError", code: "data_loss" });

describe("ObjectStoreBlobService", () => {
  it.each([
    ["garbage", Buffer.from("garbage")],
    ["nothing", Buffer.alloc(0)],
    ["another chunk", zstdCompressSync(Buffer.from("another"))],
    ["a frame that inflates to a gigabyte", zstdCompressSync(Buffer.alloc(1_000_000_000))],
  ])("tells %s in place of a chunk, and is healed by putting the blob again", async (_, frame) => {
    const { store, service, warnings } = open();
    const digest = await putBlob(service, LARGE);
    const [, second] = (await service.chunks(digest))!;
    await store.put(objectKey("chunks", second!.digest), frame);
    await expect(readBack(service, digest)).rejects.toThrow(dataLoss);
    expect(warnings.join()).toContain(second!.digest.hex);
    expect(await service.has(second!.digest)).toBe(false);
    await putBlob(service, LARGE);
    expect(Buffer.compare(await readBack(service, digest), LARGE)).toBe(0);
    expect(await service.has(second!.digest)).toBe(true);
  });

  it("tells a blob that is one damaged chunk", async () => {
    const { store, service } = open();
    const digest = await putBlob(service, Buffer.from("contents"));
    await store.put(objectKey("chunks", digest), Buffer.from("garbage"));
    await expect(service.read(digest)).rejects.toThrow(dataLoss);
    expect(await service.read(digest)).toBeUndefined();
    expect(await service.has(digest)).toBe(false);
    await service.putMany([Buffer.from("contents")]);
    expect(Buffer.from(await readBack(service, digest)).toString()).toBe("contents");
  });

  it("counts a blob as absent whose list of chunks is damaged", async () => {
    const { store, service, warnings } = open();
    const digest = await putBlob(service, LARGE);
    await store.put(objectKey("blobs", digest), Buffer.from("garbage"));
    expect(await service.chunks(digest)).toBeUndefined();
    expect(warnings.join()).toContain("its list of chunks is damaged");
    await putBlob(service, LARGE);
    expect(Buffer.compare(await readBack(service, digest), LARGE)).toBe(0);
  });

  it("tells a chunk that is gone", async () => {
    const { store, service } = open();
    const digest = await putBlob(service, LARGE);
    const [first] = (await service.chunks(digest))!;
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
    expect(await service.has(B3Digest.of(LARGE))).toBe(false);
    await putBlob(service, LARGE);
    expect(Buffer.compare(await readBack(service, B3Digest.of(LARGE)), LARGE)).toBe(0);
  });

  it("refuses a chunk size that is not offered", () => {
    const store = new MemoryObjectStore();
    const create = () => new ObjectStoreBlobService({ store, averageChunkSize: 1000 });
    expect(create).toThrow("power of two");
  });
});
