import { describe, expect, it, vi } from "vitest";
import { noise } from "../../test/noise.ts";
import { chunksOf, readBack, WatchedBlobService } from "../../test/watched-blobs.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { collectBytes } from "../bytes/byte-string.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { Outboard } from "../hash/outboard.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { MemoryObjectStore } from "../objectstore/memory.ts";
import type { BlobService } from "./blob-service.ts";
import { ChunkList } from "./chunk-list.ts";
import { ChunkedBlobReader } from "./chunked-reader.ts";
import { CombinedBlobService } from "./combined.ts";
import { MemoryBlobService } from "./memory.ts";
import { ObjectStoreBlobService } from "./objectstore/object-store-blob-service.ts";
import { putBlob } from "./put-blob.ts";
import { type OutboardSource, outboardOf, verifiedRange } from "./verified-range.ts";

const LARGE = noise(6_000_000);
const SMALL = LARGE.subarray(0, 1000);
const EMPTY = LARGE.subarray(0, 0);

const eventually = (check: () => unknown) => vi.waitFor(check, { timeout: 30_000 });
const quiet = { onWarning: () => undefined };

/** An origin that has some blobs. */
async function originOf(...blobs: readonly Uint8Array[]): Promise<WatchedBlobService> {
  const origin = new WatchedBlobService();
  for (const data of blobs) await putBlob(origin, data);
  return origin;
}

/** Waits until a store has a blob, and makes sure that it does so by itself. */
async function expectStored(store: BlobService, data: Uint8Array): Promise<void> {
  const digest = blake3Digest(data);
  await eventually(async () => expect(await store.has(digest)).toBe(true));
  expect((await readBack(store, digest)).equals(data)).toBe(true);
}

/** Reads a blob, piece by piece, until that fails. */
async function readUntilFailure(service: BlobService, digest: B3Digest) {
  const pieces: Uint8Array[] = [];
  try {
    for await (const data of (await service.read(digest))!) pieces.push(data);
    return { read: Buffer.concat(pieces), error: undefined };
  } catch (error) {
    return { read: Buffer.concat(pieces), error };
  }
}

describe("CombinedBlobService", () => {
  it.each([
    ["large", LARGE],
    ["small", SMALL],
    ["empty", EMPTY],
  ])("stores a %s blob locally that is read from the origin", async (_, data) => {
    const [near, far] = [new MemoryBlobService(), await originOf(data)];
    await using service = new CombinedBlobService({ near, far });
    expect((await readBack(service, blake3Digest(data))).equals(data)).toBe(true);
    await expectStored(near, data);
  });

  it("stores what readMany gives", async () => {
    const [near, far] = [new MemoryBlobService(), await originOf(SMALL, EMPTY)];
    await using service = new CombinedBlobService({ near, far });
    const blobs = [SMALL, EMPTY, LARGE].map((data) => ({
      digest: blake3Digest(data),
      size: data.length,
    }));
    const found = await service.readMany(blobs);
    expect(found.map((data) => data && Buffer.from(data))).toEqual([SMALL, EMPTY, undefined]);
    await expectStored(near, SMALL);
    await expectStored(near, EMPTY);
  });

  it("fetches each chunk once for all who read it at the same time, in any way", async () => {
    const [near, far] = [new MemoryBlobService(), await originOf(LARGE)];
    await using service = new CombinedBlobService({ near, far });
    const digest = blake3Digest(LARGE);
    const chunks = await chunksOf(far, digest);
    await Promise.all([
      ...Array.from({ length: 10 }, async (_, i) => {
        const offset = i % 2 === 0 ? 0 : i * 100_000;
        const found = await readBack(service, digest, { offset });
        expect(found.equals(LARGE.subarray(offset))).toBe(true);
      }),
      ...Array.from({ length: 10 }, async () => {
        const found = await service.readMany(chunks);
        expect(Buffer.concat(found as Uint8Array[]).equals(LARGE)).toBe(true);
      }),
    ]);
    expect([...far.asked.keys()].toSorted()).toEqual(
      chunks.map(({ digest }) => digest.hex).toSorted(),
    );
    expect(Math.max(...far.asked.values())).toBe(1);
    await expectStored(near, LARGE);
  });

  it("gives each reader bytes of its own", async () => {
    const [near, far] = [new MemoryBlobService(), await originOf(LARGE)];
    await using service = new CombinedBlobService({ near, far });
    const digest = blake3Digest(LARGE);
    const spoiling = (async () => {
      for await (const data of (await service.read(digest))!) data.fill(0);
    })();
    expect((await readBack(service, digest)).equals(LARGE)).toBe(true);
    await spoiling;
    await expectStored(near, LARGE);
  });

  it("fetches the chunks of a part, and stores them", async () => {
    const [near, far] = [new MemoryBlobService(), await originOf(LARGE)];
    await using service = new CombinedBlobService({ near, far });
    const digest = blake3Digest(LARGE);
    const part = LARGE.subarray(3_000_000, 3_000_010);
    await using reader = (await service.open(digest))!;
    expect(Buffer.from(await reader.read(3_000_000, 10))).toEqual(part);
    expect(await readBack(service, digest, { offset: 3_000_000, length: 10 })).toEqual(part);
    expect(far.asked.size).toBe(1);
    const digests = (await chunksOf(far, digest)).map(({ digest }) => digest);
    await eventually(async () => {
      expect((await near.hasMany(digests)).filter((has) => has)).toHaveLength(1);
    });
    expect(await near.has(digest)).toBe(false);
  });

  it("fetches only chunks that the local store lacks", async () => {
    const changed = Buffer.from(LARGE);
    changed.fill(7, 3_000_000, 3_000_100);
    const [near, far] = [new MemoryBlobService(), await originOf(changed)];
    await putBlob(near, LARGE);
    const chunks = (await chunksOf(far, blake3Digest(changed))).map(({ digest }) => digest);
    const has = await near.hasMany(chunks);
    await using service = new CombinedBlobService({ near, far });
    expect((await readBack(service, blake3Digest(changed))).equals(changed)).toBe(true);
    const lacking = chunks.filter((_, i) => !has[i]).map(({ hex }) => hex);
    expect(lacking.length).toBeLessThan(4);
    expect([...far.asked.keys()]).toEqual(lacking);
    await expectStored(near, changed);
  });

  it("reads what was stored when the origin is gone", async () => {
    const [near, far] = [new MemoryBlobService(), await originOf(LARGE)];
    await using service = new CombinedBlobService({ near, far });
    await readBack(service, blake3Digest(LARGE));
    await expectStored(near, LARGE);
    const gone = async () => Promise.reject(new CastoreError("unavailable", "the origin is gone"));
    [far.open, far.readMany, far.read, far.hasMany] = [gone, gone, gone, gone];
    expect((await readBack(service, blake3Digest(LARGE))).equals(LARGE)).toBe(true);
    expect(await service.has(blake3Digest(LARGE))).toBe(true);
    await expect(service.read(blake3Digest(SMALL))).rejects.toThrow("the origin is gone");
  });

  it("goes on for the others when a reader is cancelled, and cancels the origin with the last one", async () => {
    const [near, far] = [new MemoryBlobService(), await originOf(LARGE)];
    const digest = blake3Digest(LARGE);
    let asked: AbortSignal | undefined;
    const go = Promise.withResolvers<void>();
    const readMany = far.readMany.bind(far);
    far.readMany = async (blobs, options) => {
      asked ??= options!.signal!;
      await go.promise;
      return await readMany(blobs, options);
    };
    await using service = new CombinedBlobService({ near, far });
    const reason = new Error("enough");
    const controllers = [new AbortController(), new AbortController(), new AbortController()];
    const [first, second, third] = controllers.map(({ signal }) =>
      readBack(service, digest, { signal }),
    );
    await eventually(() => expect(asked).toBeDefined());
    controllers[0]!.abort(reason);
    await expect(first).rejects.toBe(reason);
    expect(asked!.aborted).toBe(false);
    controllers[1]!.abort(reason);
    controllers[2]!.abort(reason);
    await expect(second).rejects.toBe(reason);
    await expect(third).rejects.toBe(reason);
    expect(asked!.aborted).toBe(true);
    go.resolve();
    expect((await readBack(service, digest)).equals(LARGE)).toBe(true);
    await expectStored(near, LARGE);
  });

  it("stores what was read when it is disposed of", async () => {
    const [near, far] = [new MemoryBlobService(), await originOf(LARGE)];
    const service = new CombinedBlobService({ near, far });
    await readBack(service, blake3Digest(LARGE));
    await service[Symbol.asyncDispose]();
    expect((await readBack(near, blake3Digest(LARGE))).equals(LARGE)).toBe(true);
  });

  it("holds nothing for a stream that is never read", async () => {
    const [near, far] = [new MemoryBlobService(), await originOf(LARGE)];
    await using service = new CombinedBlobService({ near, far });
    await service.read(blake3Digest(LARGE));
    expect(far.asked.size).toBe(0);
  });
});

describe("CombinedBlobService of stores that cut differently", () => {
  const bucket = (averageChunkSize: number, store = new MemoryObjectStore()) =>
    new ObjectStoreBlobService({ store, averageChunkSize, onCorrupt: () => undefined });

  it.each([
    ["smaller", 64 * 1024, 2 * 1024 * 1024],
    ["larger", 2 * 1024 * 1024, 64 * 1024],
  ])("stores a blob where the local chunks are %s", async (_, nearSize, farSize) => {
    const [near, far] = [bucket(nearSize), bucket(farSize)];
    const digest = await putBlob(far, LARGE);
    await using service = new CombinedBlobService({ near, far });
    expect((await readBack(service, digest)).equals(LARGE)).toBe(true);
    await expectStored(near, LARGE);
  });

  it("replaces local chunks that were lost or damaged by parts of the origin's blob", async () => {
    const store = new MemoryObjectStore();
    const [near, far] = [bucket(64 * 1024, store), bucket(2 * 1024 * 1024)];
    const digest = await putBlob(far, LARGE);
    await putBlob(near, LARGE);
    const chunks = await chunksOf(near, digest);
    const keyOf = ({ hex }: B3Digest) => `chunks/b3/${hex.slice(0, 4)}/${hex}`;
    await store.delete(keyOf(chunks[3]!.digest));
    const damaged = Buffer.from(await collectBytes((await store.get(keyOf(chunks[9]!.digest)))!));
    await store.put(keyOf(chunks[9]!.digest), damaged.fill(1, damaged.length >> 1));
    await using service = new CombinedBlobService({ near, far, ...quiet });
    expect((await readBack(service, digest)).equals(LARGE)).toBe(true);
    await eventually(async () => {
      expect((await readBack(near, digest)).equals(LARGE)).toBe(true);
    });
  });
});

describe("CombinedBlobService whose origin fails in the middle", () => {
  const digest = blake3Digest(LARGE);
  const nth = (count: number, give: (data: Uint8Array) => Uint8Array | undefined) => {
    let left = count;
    return (_: unknown, data: Uint8Array | undefined) => (left-- === 0 ? data && give(data) : data);
  };
  const flip = (data: Uint8Array) => {
    data[10]! ^= 1;
    return data;
  };

  it.each([0, 1, 5, 20])("never gives a wrong byte that it sends in chunk %i", async (count) => {
    const [near, far] = [new MemoryBlobService(), await originOf(LARGE)];
    far.give = nth(count, flip);
    await using service = new CombinedBlobService({ near, far, ...quiet });
    const { read, error } = await readUntilFailure(service, digest);
    if (error === undefined) expect(read.equals(LARGE)).toBe(true);
    else expect(error).toMatchObject({ code: "data_loss" });
    expect(read.equals(LARGE.subarray(0, read.length))).toBe(true);
    expect((await readBack(service, digest)).equals(LARGE)).toBe(true);
    await expectStored(near, LARGE);
  });

  it("fails where a chunk is damaged for good, and stores no list", async () => {
    const [near, far] = [new MemoryBlobService(), await originOf(LARGE)];
    const chunks = await chunksOf(far, digest);
    far.give = (chunk, data) => (chunk.digest.equals(chunks[7]!.digest) ? undefined : data);
    far.open = async () => {
      const fetch = async ({ digest }: { digest: B3Digest }) => {
        if (digest.equals(chunks[7]!.digest)) throw new CastoreError("data_loss", "it is damaged");
        return LARGE;
      };
      return new ChunkedBlobReader(digest, ChunkList.of(chunks), fetch);
    };
    const service = new CombinedBlobService({ near, far, ...quiet });
    const { read, error } = await readUntilFailure(service, digest);
    expect(error).toMatchObject({ code: "data_loss" });
    const before = chunks.slice(0, 7).reduce((sum, { size }) => sum + size, 0);
    expect(read.equals(LARGE.subarray(0, before))).toBe(true);
    await service[Symbol.asyncDispose]();
    expect(await near.has(digest)).toBe(false);
  });

  it("fails when it is no longer reached, and goes on later with what it lacks", async () => {
    const [near, far] = [new MemoryBlobService(), await originOf(LARGE)];
    let isGone = false;
    far.give = (_, data) => {
      if (isGone) throw new CastoreError("unavailable", "the origin is gone");
      isGone = far.asked.size > 8;
      return data;
    };
    await using service = new CombinedBlobService({ near, far });
    const { read, error } = await readUntilFailure(service, digest);
    expect(error).toMatchObject({ code: "unavailable", message: "the origin is gone" });
    expect(read.equals(LARGE.subarray(0, read.length))).toBe(true);
    far.give = (_, data) => data;
    expect((await readBack(service, digest)).equals(LARGE)).toBe(true);
    await expectStored(near, LARGE);
  });

  it("refuses a list of another blob before its last chunk is handed out", async () => {
    const other = noise(6_000_000, 9);
    const [near, far] = [new MemoryBlobService(), await originOf(other)];
    const list = ChunkList.of(await chunksOf(far, blake3Digest(other)));
    far.open = async () => new ChunkedBlobReader(digest, list, async () => other);
    const service = new CombinedBlobService({ near, far, ...quiet });
    const { read, error } = await readUntilFailure(service, digest);
    expect(error).toMatchObject({ code: "data_loss" });
    expect(String(error)).toContain(`${blake3Digest(other)}`);
    expect(read.length).toBe(other.length - list.sizeAt(list.length - 1));
    await service[Symbol.asyncDispose]();
    expect(await near.has(digest)).toBe(false);
  });

  it("refuses a blob that is listed as one other chunk, also in part", async () => {
    const far = await originOf(SMALL);
    const list = ChunkList.of([{ digest: blake3Digest(SMALL), size: SMALL.length }]);
    far.open = async () => new ChunkedBlobReader(digest, list, async () => SMALL);
    await using service = new CombinedBlobService({ near: new MemoryBlobService(), far });
    const part = service.read(digest, { offset: 1, length: 1 });
    await expect(part).rejects.toMatchObject({ code: "data_loss" });
    await expect(service.open(digest)).rejects.toMatchObject({ code: "data_loss" });
  });
});

describe("CombinedBlobService whose origin does not cut", () => {
  /** Has no list to give of larger blobs, as a server of another program. */
  class UncutBlobService extends WatchedBlobService {
    override async open(): Promise<never> {
      throw new CastoreError("unimplemented", "expected a blob of at most 8 MiB");
    }
    override async readMany() {
      return [undefined];
    }
  }

  it("streams a blob, and stores it in chunks", async () => {
    const [near, far] = [new MemoryBlobService(), new UncutBlobService()];
    const digest = await putBlob(far, LARGE);
    await using service = new CombinedBlobService({ near, far });
    const part = await readBack(service, digest, { offset: 5, length: 10 });
    expect(part).toEqual(LARGE.subarray(5, 15));
    expect(await service.read(blake3Digest(SMALL))).toBeUndefined();
    expect((await readBack(service, digest)).equals(LARGE)).toBe(true);
    await expectStored(near, LARGE);
  });

  it("refuses a stream of another blob, and does not store it", async () => {
    const [near, far] = [new MemoryBlobService(), new UncutBlobService()];
    const digest = await putBlob(far, LARGE);
    const wrong = Buffer.from(LARGE);
    wrong[5_999_999]! ^= 1;
    far.read = async () =>
      (async function* () {
        for (let at = 0; at < wrong.length; at += 100_000) yield wrong.subarray(at, at + 100_000);
      })();
    const service = new CombinedBlobService({ near, far, ...quiet });
    const { read, error } = await readUntilFailure(service, digest);
    expect(error).toMatchObject({ code: "data_loss" });
    expect(read.equals(LARGE.subarray(0, 5_900_000))).toBe(true);
    await service[Symbol.asyncDispose]();
    expect(await near.has(digest)).toBe(false);
  });
});

/** Has some outboards. */
class OutboardBlobService extends MemoryBlobService implements OutboardSource {
  readonly outboards = new Map<string, Outboard>();

  async outboard({ hex }: B3Digest, _options?: AbortOptions) {
    return this.outboards.get(hex);
  }
}

describe("the outboards of a CombinedBlobService", () => {
  it("come from the store that has them, the local one first, without reading the blob", async () => {
    const [near, far] = [new OutboardBlobService(), new OutboardBlobService()];
    const digest = await putBlob(far, LARGE);
    const outboard = (await outboardOf(far, digest))!;
    const service = new CombinedBlobService({ near, far });
    far.outboards.set(digest.hex, outboard);
    expect(await service.outboard(digest)).toBe(outboard);
    const range = { offset: 5_000_000, length: 10 };
    const found = Buffer.from(await collectBytes((await verifiedRange(service, digest, range))!));
    expect(found).toEqual(LARGE.subarray(5_000_000, 5_000_010));
    expect(await near.has(digest)).toBe(false);
    near.outboards.set(digest.hex, outboard);
    far.outboard = () => Promise.reject(new CastoreError("unavailable", "the server is gone"));
    expect(await service.outboard(digest)).toBe(outboard);
  });

  it("are made of what the local store has where the origin fails", async () => {
    const [near, far] = [new MemoryBlobService(), new OutboardBlobService()];
    const gone = () => Promise.reject(new CastoreError("unavailable", "the server is gone"));
    [far.outboard, far.read, far.open] = [gone, gone, gone];
    const service = new CombinedBlobService({ near, far, ...quiet });
    const digest = await putBlob(near, LARGE);
    const found = await collectBytes((await verifiedRange(service, digest, { length: 10 }))!);
    expect(Buffer.compare(found, LARGE.subarray(0, 10))).toBe(0);
    const absent = blake3Digest(Buffer.from("absent"));
    await expect(service.outboard(absent)).rejects.toThrow("the server is gone");
  });
});
