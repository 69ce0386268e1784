import { describe, expect, it, vi } from "vitest";
import { noise } from "../../test/noise.ts";
import { chunksOf, readBack, WatchedBlobService } from "../../test/watched-blobs.ts";
import { CACHE_MODES } from "../cache/origin-cache.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import { CastoreError } from "../model/errors.ts";
import { ChunkList } from "./chunk-list.ts";
import { CombinedBlobService } from "./combined.ts";
import { MemoryBlobService } from "./memory.ts";
import { putBlob } from "./put-blob.ts";

const LARGE = noise(6_000_000);
const DIGEST = blake3Digest(LARGE);

const eventually = (check: () => unknown) => vi.waitFor(check, { timeout: 30_000 });

/** How each mode stores. */
const STORES = {
  "write-through": [true, true],
  "near-only": [true, false],
  "far-only": [false, true],
};

describe.each(CACHE_MODES)("CombinedBlobService, %s", (mode) => {
  it("writes where the mode says", async () => {
    const [near, far] = [new MemoryBlobService(), new MemoryBlobService()];
    await using service = new CombinedBlobService({ near, far, mode });
    await putBlob(service, LARGE);
    const [small] = await service.putMany([Buffer.from("small")]);
    for (const digest of [DIGEST, small!]) {
      expect([await near.has(digest), await far.has(digest)]).toEqual(STORES[mode]);
    }
  });

  it("commits a list of chunks wherever they are", async () => {
    const [near, far] = [new MemoryBlobService(), new MemoryBlobService()];
    const source = new MemoryBlobService();
    await putBlob(source, LARGE);
    const chunks = await chunksOf(source, DIGEST);
    const contents = (await source.readMany(chunks)) as Uint8Array[];
    const half = contents.length >> 1;
    await near.putMany(contents.slice(0, half));
    await far.putMany(contents.slice(half));
    await using service = new CombinedBlobService({ near, far, mode });
    expect(await service.hasMany(chunks.map(({ digest }) => digest))).not.toContain(false);
    await service.putList(DIGEST, ChunkList.of(chunks));
    expect((await readBack(service, DIGEST)).equals(LARGE)).toBe(true);
    await eventually(async () => {
      if (mode !== "near-only") expect((await readBack(far, DIGEST)).equals(LARGE)).toBe(true);
      if (mode === "near-only") expect((await readBack(near, DIGEST)).equals(LARGE)).toBe(true);
    });
  });

  it("names a chunk that neither store has", async () => {
    const [near, far] = [new MemoryBlobService(), new MemoryBlobService()];
    await using service = new CombinedBlobService({ near, far, mode });
    const absent = blake3Digest(Buffer.from("absent"));
    const list = ChunkList.of([
      { digest: absent, size: 6 },
      { digest: absent, size: 6 },
    ]);
    await expect(service.putList(DIGEST, list)).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringContaining(`${absent}`),
    });
  });
});

describe("CombinedBlobService, writing through", () => {
  it("has stored nothing locally that the origin refused", async () => {
    const [near, far] = [new MemoryBlobService(), new MemoryBlobService()];
    const refuse = async () => {
      throw new CastoreError("unavailable", "the origin is gone");
    };
    far.putMany = refuse;
    far.putList = refuse;
    const openWriter = far.openWriter.bind(far);
    far.openWriter = (options) => Object.assign(openWriter(options), { close: refuse });
    await using service = new CombinedBlobService({ near, far });
    await expect(service.putMany([LARGE])).rejects.toThrow("the origin is gone");
    await expect(putBlob(service, LARGE)).rejects.toThrow("the origin is gone");
    const chunks = ChunkList.of([]);
    await expect(service.putList(blake3Digest(Buffer.alloc(0)), chunks)).rejects.toThrow(
      "the origin is gone",
    );
    expect(await near.hasMany([DIGEST, blake3Digest(Buffer.alloc(0))])).toEqual([false, false]);
  });

  it("leaves the caller's bytes alone when the local store takes them too late", async () => {
    const [near, far] = [new MemoryBlobService(), new MemoryBlobService()];
    const go = Promise.withResolvers<void>();
    const put = near.putMany.bind(near);
    near.putMany = async (blobs, options) => {
      await go.promise;
      return await put(blobs, { ...options, signal: new AbortController().signal });
    };
    const options = { near, far, onWarning: () => undefined, nearWriteTimeoutMs: 20 };
    await using service = new CombinedBlobService(options);
    const data = Buffer.from("the caller's bytes");
    const [digest] = await service.putMany([data]);
    data.fill(0);
    go.resolve();
    await eventually(async () => expect(await near.has(digest!)).toBe(true));
    expect((await readBack(near, digest!)).toString()).toBe("the caller's bytes");
  });
});

describe("the frames of a CombinedBlobService", () => {
  it("are those of the local store, and others are stored there on the way", async () => {
    const [near, far] = [new MemoryBlobService(), new WatchedBlobService()];
    await putBlob(far, LARGE);
    const chunks = await chunksOf(far, DIGEST);
    const list = ChunkList.of(chunks);
    const expected = (await Array.fromAsync(far.frames(list))).map((frame) => Buffer.from(frame));
    far.asked.clear();
    await using service = new CombinedBlobService({ near, far });
    const frames = async () =>
      (await Array.fromAsync(service.frames(list))).map((frame) => Buffer.from(frame));
    expect(await frames()).toEqual(expected);
    expect(far.asked.size).toBe(chunks.length);
    const digests = chunks.map(({ digest }) => digest);
    await eventually(async () => expect(await near.hasMany(digests)).not.toContain(false));
    far.asked.clear();
    expect(await frames()).toEqual(expected);
    expect(far.asked.size).toBe(0);
  });

  it("end with data_loss at a chunk that is absent", async () => {
    const [near, far] = [new MemoryBlobService(), new MemoryBlobService()];
    await putBlob(far, LARGE);
    const chunks = await chunksOf(far, DIGEST);
    const absent = { digest: blake3Digest(Buffer.from("absent")), size: 6 };
    await using service = new CombinedBlobService({ near, far });
    const list = ChunkList.of([chunks[0]!, absent, chunks[1]!]);
    const reading = Array.fromAsync(service.frames(list));
    await expect(reading).rejects.toMatchObject({ code: "data_loss" });
  });
});
