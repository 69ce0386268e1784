import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it, vi } from "vitest";
import { chunksOf } from "../../test/chunks-of.ts";
import { noise } from "../../test/noise.ts";
import { collectBytes } from "../bytes/byte-string.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { Outboard } from "../hash/outboard.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { MemoryObjectStore } from "../objectstore/memory.ts";
import type { BlobService, ReadOptions } from "./blob-service.ts";
import { CombinedBlobService } from "./combined.ts";
import { MemoryBlobService } from "./memory.ts";
import { ObjectStoreBlobService } from "./objectstore/object-store-blob-service.ts";
import { putBlob } from "./put-blob.ts";
import { type OutboardSource, outboardOf, verifiedRange } from "./verified-range.ts";

const LARGE = noise(12_000_000);

/** Notes how often it is read. */
class CountingBlobService extends MemoryBlobService {
  readonly reads: string[] = [];

  override read(digest: B3Digest, options?: ReadOptions) {
    this.reads.push(digest.hex);
    return super.read(digest, options);
  }
}

/** Has what it was given, but cannot be used. */
class BrokenBlobService extends MemoryBlobService {
  override async hasMany(): Promise<never> {
    throw new CastoreError("unavailable", "the disk is gone");
  }
  override open = this.hasMany;
  override read = this.hasMany;
  override readMany = this.hasMany;
  override putMany = this.hasMany;
  override openWriter(): never {
    throw new CastoreError("resource_exhausted", "the disk is full");
  }
}

/** Gives the first bytes of a blob, and then fails. */
class BreakingBlobService extends MemoryBlobService {
  override async read(digest: B3Digest, options?: ReadOptions) {
    const stream = await super.read(digest, options);
    return stream && breaking(stream);
  }
}

async function* breaking(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let count = 0;
  for await (const data of stream) {
    if (count++ === 3) throw new CastoreError("data_loss", "the disk is damaged");
    yield data;
  }
}

/** Begins with other bytes than the blob has, as who believes a damaged list of chunks does, and then notices. */
class LyingBlobService extends MemoryBlobService {
  override async read() {
    return breaking(pieces(noise(1_000_000, 9)));
  }
}

async function* pieces(data: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < data.length; at += 100_000) yield data.subarray(at, at + 100_000);
}

/** Has some outboards. */
class OutboardBlobService extends MemoryBlobService implements OutboardSource {
  readonly outboards = new Map<string, Outboard>();

  async outboard({ hex }: B3Digest) {
    return this.outboards.get(hex);
  }
}

/** A service that tells how blobs are cut. */
const openBucket = () => new ObjectStoreBlobService({ store: new MemoryObjectStore() });

async function readBack(service: BlobService, digest: B3Digest, options?: ReadOptions) {
  return Buffer.from(await collectBytes((await service.read(digest, options))!));
}

describe("CombinedBlobService", () => {
  it.each([
    ["small", LARGE.subarray(0, 1000)],
    ["large", LARGE],
  ])("keeps a %s blob that only the far half has, once for all who read it", async (_, data) => {
    const [near, far] = [new MemoryBlobService(), new CountingBlobService()];
    const digest = await putBlob(far, data);
    const service = new CombinedBlobService({ near, far });
    const reads = Array.from({ length: 20 }, () => readBack(service, digest));
    for (const found of await Promise.all(reads)) expect(found.equals(data)).toBe(true);
    expect(far.reads).toHaveLength(1);
    await vi.waitFor(async () => expect(await near.has(digest)).toBe(true));
    await readBack(service, digest);
    expect(far.reads).toHaveLength(1);
  });

  it("keeps what a reader who stopped did not read, and lets nobody wait for a slow one", async () => {
    const [near, far] = [new MemoryBlobService(), new MemoryBlobService()];
    const digest = await putBlob(far, LARGE);
    const service = new CombinedBlobService({ near, far });
    for await (const _ of (await service.read(digest))!) break;
    const slow = (await service.read(digest))![Symbol.asyncIterator]();
    const parts = [Buffer.from((await slow.next()).value)];
    expect((await readBack(service, digest)).equals(LARGE)).toBe(true);
    await vi.waitFor(async () => expect(await near.has(digest)).toBe(true));
    for (let next = await slow.next(); !next.done; next = await slow.next()) {
      parts.push(Buffer.from(next.value)); // it is only lent
    }
    expect(Buffer.concat(parts).equals(LARGE)).toBe(true);
  });

  it("keeps the chunks of a blob that is read in part", async () => {
    const [near, far] = [new MemoryBlobService(), new MemoryBlobService()];
    const digest = await putBlob(far, LARGE);
    const service = new CombinedBlobService({ near, far });
    const range = { offset: 5_000_000, length: 10 };
    const found = await readBack(service, digest, range);
    expect(found.equals(LARGE.subarray(5_000_000, 5_000_010))).toBe(true);
    expect(await near.has(digest)).toBe(false);
    await vi.waitFor(async () => {
      const chunks = await near.hasMany((await chunksOf(far, digest))!.map(({ digest }) => digest));
      expect(chunks.filter((has) => has)).toHaveLength(1);
    });
  });

  it("fetches no more of a blob than the chunks that the near half lacks", async () => {
    const [near, far] = [openBucket(), openBucket()];
    const changed = Buffer.from(LARGE);
    changed.fill(7, 6_000_000, 6_000_100);
    await putBlob(near, LARGE);
    const digest = await putBlob(far, changed);
    const chunks = (await chunksOf(far, digest))!.map(({ digest }) => digest);
    const lacks = await near.hasMany(chunks);
    const read: string[] = [];
    const readFar = far.read.bind(far);
    far.read = (digest, options) => {
      read.push(digest.hex);
      return readFar(digest, options);
    };
    const service = new CombinedBlobService({ near: near, far: far });
    expect((await readBack(service, digest)).equals(changed)).toBe(true);
    const missing = chunks.filter((_, i) => !lacks[i]).map(({ hex }) => hex);
    expect(missing.length).toBeLessThan(4);
    expect(read).toEqual(missing);
    await vi.waitFor(async () => expect(await near.has(digest)).toBe(true));
  });

  it("goes on when a reader is cancelled", async () => {
    const [near, far] = [new MemoryBlobService(), new MemoryBlobService()];
    const digest = await putBlob(far, LARGE);
    const service = new CombinedBlobService({ near, far });
    const controller = new AbortController();
    const reason = new Error("enough");
    const { signal } = controller;
    const reading = async () => {
      for await (const _ of (await service.read(digest, { signal }))!) controller.abort(reason);
    };
    await expect(reading()).rejects.toBe(reason);
    await vi.waitFor(async () => expect(await near.has(digest)).toBe(true));
  });

  it("reads and writes as before when the near half fails, and warns", async () => {
    const [near, far] = [new BrokenBlobService(), new MemoryBlobService()];
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    const service = new CombinedBlobService({ near, far, onWarning });
    const digest = await putBlob(service, LARGE);
    expect((await readBack(service, digest)).equals(LARGE)).toBe(true);
    expect(await readBack(service, digest, { offset: 5_000_000, length: 3 })).toHaveLength(3);
    expect(await service.hasMany([digest, blake3Digest(Buffer.from("x"))])).toEqual([true, false]);
    const [small] = await service.putMany([Buffer.from("small")]);
    const found = await service.readMany([{ digest: small!, size: 5 }]);
    expect(Buffer.from(found[0]!).toString()).toBe("small");
    expect(warnings.join()).toContain("the disk is gone");
    expect(warnings.join()).toContain("the disk is full");
  });

  it("does not go on from the far half with what was another blob in the near one", async () => {
    const far = new MemoryBlobService();
    const service = new CombinedBlobService({
      near: new LyingBlobService(),
      far,
      onWarning: () => undefined,
    });
    const digest = await putBlob(far, LARGE);
    const read: Uint8Array[] = [];
    const reading = async () => {
      for await (const data of (await service.read(digest))!) read.push(data.slice());
    };
    await expect(reading()).rejects.toMatchObject({ code: "data_loss" });
    expect(Buffer.concat(read).length).toBeLessThan(LARGE.length);
  });

  it("takes from the far half what the near one cannot give to its end", async () => {
    const [near, far] = [new BreakingBlobService(), new MemoryBlobService()];
    const digest = await putBlob(far, LARGE);
    await putBlob(near, LARGE);
    const service = new CombinedBlobService({ near, far, onWarning: () => undefined });
    expect((await readBack(service, digest)).equals(LARGE)).toBe(true);
    const range = { offset: 100, length: 9_000_000 };
    const found = await readBack(service, digest, range);
    expect(found.equals(LARGE.subarray(100, 9_000_100))).toBe(true);
  });

  it("does not keep what is not what was asked for", async () => {
    const far = new (class extends MemoryBlobService {
      override async read() {
        return breaking(await collectedAs("something else"));
      }
    })();
    const near = new MemoryBlobService();
    const digest = await putBlob(far, Buffer.from("contents"));
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    const service = new CombinedBlobService({ near, far, onWarning });
    await readBack(service, digest);
    await vi.waitFor(() => expect(warnings.join()).toContain("Cannot copy blob"));
    expect(await near.has(digest)).toBe(false);
    expect(await near.has(blake3Digest(Buffer.from("something else")))).toBe(false);
  });

  it("has stored nothing near that is not far when the far half fails", async () => {
    const far = new BrokenBlobService();
    const near = new MemoryBlobService();
    const service = new CombinedBlobService({ near, far });
    await expect(service.putMany([Buffer.from("x")])).rejects.toThrow("the disk is gone");
    expect(() => service.openWriter()).toThrow("the disk is full");
    expect(await near.has(blake3Digest(Buffer.from("x")))).toBe(false);
  });

  it("gives the outboard that either half has, the near one first, without reading the blob", async () => {
    const [near, far] = [new OutboardBlobService(), new OutboardBlobService()];
    const digest = await putBlob(far, LARGE);
    const outboard = (await outboardOf(far, digest))!;
    const service = new CombinedBlobService({ near, far });
    far.outboards.set(digest.hex, outboard);
    expect(await service.outboard(digest)).toBe(outboard);
    const range = { offset: 5_000_000, length: 10 };
    const found = Buffer.from(await collectBytes((await verifiedRange(service, digest, range))!));
    expect(found.equals(LARGE.subarray(5_000_000, 5_000_010))).toBe(true);
    expect(await near.has(digest)).toBe(false);
    near.outboards.set(digest.hex, outboard);
    far.outboard = () => Promise.reject(new CastoreError("unavailable", "the server is gone"));
    expect(await service.outboard(digest)).toBe(outboard);
  });

  it("makes the outboard of what the near half has when the far one fails", async () => {
    const [near, far] = [new MemoryBlobService(), new OutboardBlobService()];
    const gone = () => Promise.reject(new CastoreError("unavailable", "the server is gone"));
    [far.outboard, far.read] = [gone, gone];
    const service = new CombinedBlobService({ near, far, onWarning: () => undefined });
    const digest = await putBlob(near, LARGE);
    const found = await collectBytes((await verifiedRange(service, digest, { length: 10 }))!);
    expect(Buffer.compare(found, LARGE.subarray(0, 10))).toBe(0);
    const absent = blake3Digest(Buffer.from("absent"));
    await expect(service.outboard(absent)).rejects.toThrow("the server is gone");
  });

  it("gives up what it keeps when it is disposed of", async () => {
    const near = new MemoryBlobService();
    const far = new (class extends MemoryBlobService {
      override async read(_: B3Digest, options?: ReadOptions) {
        return waiting(options?.signal);
      }
    })();
    const digest = await putBlob(far, Buffer.from("contents"));
    const service = new CombinedBlobService({ near, far, onWarning: () => undefined });
    const reading = readBack(service, digest);
    reading.catch(() => undefined);
    await sleep(10);
    await service[Symbol.asyncDispose]();
    await expect(reading).rejects.toThrow();
  });
});

async function collectedAs(text: string): Promise<AsyncIterable<Uint8Array>> {
  return (async function* () {
    yield Buffer.from(text);
  })();
}

async function* waiting(signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  await new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
  yield new Uint8Array(0);
}
