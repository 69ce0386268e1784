import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type StatBlobResponse,
  StatBlobResponse_ChunkMetaSchema,
  StatBlobResponseSchema,
} from "@tvix/proto/castore";
import { describe, expect, it } from "vitest";
import { chunksOf } from "../../../test/chunks-of.ts";
import { noise } from "../../../test/noise.ts";
import { dataLoss, open, readBack } from "../../../test/object-store-blobs.ts";
import { collectBytes } from "../../bytes/byte-string.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import type { MemoryObjectStore } from "../../objectstore/memory.ts";
import { objectKey } from "../../objectstore/object-key.ts";
import { putBlob } from "../put-blob.ts";
import type { ObjectStoreBlobService } from "./object-store-blob-service.ts";

const LARGE = noise(2_000_000);

/** Stores another list of chunks for a blob. */
async function changeList(
  store: MemoryObjectStore,
  digest: B3Digest,
  change: (list: StatBlobResponse) => unknown,
): Promise<void> {
  const key = objectKey("blobs", digest);
  const list = fromBinary(StatBlobResponseSchema, await collectBytes((await store.get(key))!));
  change(list);
  await store.put(key, toBinary(StatBlobResponseSchema, list));
}

describe("the list of chunks of a blob in an object store", () => {
  const wrongLists: readonly (readonly [string, (list: StatBlobResponse) => unknown])[] = [
    ["lacks a chunk", (list) => list.chunks.splice(1, 1)],
    ["lacks the last chunk", (list) => list.chunks.pop()],
    ["has two chunks in another order", (list) => list.chunks.splice(1, 2, ...swapped(list))],
    ["says that a chunk is longer", ({ chunks }) => setSize(chunks[1]!, chunks[1]!.size + 1n)],
    ["says that a chunk is shorter", ({ chunks }) => setSize(chunks[1]!, chunks[1]!.size - 1n)],
    ["names a chunk that does not exist", (list) => list.chunks[1]!.digest.fill(7)],
    ["names an empty chunk", (list) => list.chunks.push(emptyChunk())],
    ["has a chunk longer than any", ({ chunks }) => setSize(chunks[0]!, 1n << 40n)],
  ];
  const setSize = (chunk: { size: bigint }, size: bigint) => {
    chunk.size = size;
  };
  const swapped = ({ chunks }: StatBlobResponse) => [chunks[2]!, chunks[1]!];
  const emptyChunk = () =>
    create(StatBlobResponse_ChunkMetaSchema, {
      digest: blake3Digest(new Uint8Array(0)).bytes,
      size: 0n,
    });

  it.each(wrongLists)(
    "gives no blob whose list of chunks %s, and is healed by putting it again",
    async (_, change) => {
      const { store, service, warnings } = open();
      const digest = await putBlob(service, LARGE);
      await changeList(store, digest, change);
      const found: Uint8Array[] = [];
      const read = async () => {
        for await (const data of (await service.read(digest)) ?? []) found.push(data.slice());
        throw new CastoreError("data_loss", "it is absent"); // which will do too
      };
      await expect(read()).rejects.toThrow(dataLoss);
      expect(found).toEqual([]); // it is not the list that was stored
      expect(warnings).toHaveLength(1);
      expect(`${warnings}`.includes(`${digest}`) || `${warnings}`.includes(digest.hex)).toBe(true);
      expect(await service.has(digest)).toBe(false);
      const many = await service.readMany([{ digest, size: LARGE.length }]);
      expect(many).toEqual([undefined]);
      await putBlob(service, LARGE);
      expect(await service.has(digest)).toBe(true);
      expect(Buffer.compare(await readBack(service, digest), LARGE)).toBe(0);
    },
  );

  it.each(wrongLists)(
    "gives no part of a blob whose list of chunks %s, whoever wrote it",
    async (_, change) => {
      for (const isOurs of [true, false]) {
        const { store, service, warnings } = open();
        const digest = await putBlob(service, LARGE);
        await changeList(store, digest, change);
        if (!isOurs) await store.delete(objectKey("lists", digest));
        for (const range of [{ offset: 1_500_000, length: 1000 }, { length: 1000 }]) {
          const opened = open(store).service;
          const read = async () => {
            const stream = await opened.read(digest, range);
            if (stream === undefined) throw new CastoreError("data_loss", "which will do too");
            await collectBytes(stream);
          };
          await expect(read()).rejects.toThrow(dataLoss);
          expect(await chunksOf(opened, digest)).toBeUndefined();
        }
        expect(await chunksOf(open(store).service, digest)).toBeUndefined();
        await putBlob(open(store).service, LARGE);
        const healed = open(store).service;
        expect((await chunksOf(healed, digest))!.length).toBeGreaterThan(2);
        expect(Buffer.compare(await readBack(healed, digest), LARGE)).toBe(0);
        expect(warnings).toEqual([]);
      }
    },
  );

  /** The keys of objects that are got while something is done. */
  async function gotBy(store: MemoryObjectStore, action: () => Promise<unknown>) {
    const got: string[] = [];
    const get = store.get.bind(store);
    store.get = (key, ...rest) => {
      got.push(key);
      return get(key, ...rest);
    };
    await action();
    store.get = get;
    return got;
  }

  const readPart = async (service: ObjectStoreBlobService, digest: B3Digest) => {
    const range = { offset: 1_200_000, length: 5 };
    const found = await collectBytes((await service.read(digest, range))!);
    expect(Buffer.compare(found, LARGE.subarray(1_200_000, 1_200_005))).toBe(0);
  };

  it("reads a part of a blob without the rest, and asks once whether its list is right", async () => {
    const { store, service: writer } = open();
    const digest = await putBlob(writer, LARGE);
    const { service } = open(store);
    const objects = [objectKey("chunks", digest), objectKey("blobs", digest)];
    const first = await gotBy(store, () => readPart(service, digest));
    expect(first).toHaveLength(4);
    expect(first.slice(0, 3)).toEqual([...objects, objectKey("lists", digest)]);
    expect(await gotBy(store, () => readPart(service, digest))).toHaveLength(3);
    expect(await gotBy(store, () => readPart(writer, digest))).toHaveLength(3);
    expect(await gotBy(store, () => chunksOf(service, digest))).toEqual([objects[1]]);
  });

  it.each([
    ["has none", (store: MemoryObjectStore, key: string) => store.delete(key)],
    ["has another", (store: MemoryObjectStore, key: string) => store.put(key, Buffer.alloc(32))],
    ["has garbage", (store: MemoryObjectStore, key: string) => store.put(key, LARGE)],
  ])("reads a blob once for all who want a part, if its list %s beside it", async (_, change) => {
    const { store, service: writer } = open();
    const digest = await putBlob(writer, LARGE);
    const chunks = (await chunksOf(writer, digest))!;
    await change(store, objectKey("lists", digest));
    const { service, warnings } = open(store);
    const many = () =>
      Promise.all(
        Array.from({ length: 20 }, (_, i) =>
          i % 2 ? readPart(service, digest) : chunksOf(service, digest),
        ),
      );
    const keys = new Set(chunks.map(({ digest }) => objectKey("chunks", digest)));
    const isChunk = (key: string) => keys.has(key);
    expect((await gotBy(store, many)).filter(isChunk)).toHaveLength(chunks.length + 10);
    expect((await gotBy(store, many)).filter(isChunk)).toHaveLength(10);
    const { service: other } = open(store);
    await readBack(other, digest); // proves it too
    expect((await gotBy(store, () => readPart(other, digest))).filter(isChunk)).toHaveLength(1);
    expect(warnings).toEqual([]);
  });

  it("lets those go on who want a part of a blob, when others are cancelled", async () => {
    const { store, service: writer } = open();
    const digest = await putBlob(writer, LARGE);
    await store.delete(objectKey("lists", digest));
    const { service } = open(store);
    const controller = new AbortController();
    const reason = new Error("enough");
    const cancelled = service.read(digest, { offset: 1, signal: controller.signal });
    const others = Promise.all([readPart(service, digest), readPart(service, digest)]);
    setImmediate(() => controller.abort(reason));
    await expect(cancelled).rejects.toBe(reason);
    await others;
  });
});
