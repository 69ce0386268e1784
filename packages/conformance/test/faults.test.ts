import {
  B3Digest,
  type BlobService,
  blake3Digest,
  CacheDirectoryService,
  CastoreError,
  CombinedBlobService,
  collectBytes,
  Directory,
  type DirectoryService,
  type ErrorCode,
  encodeDirectory,
  MemoryBlobService,
  MemoryDirectoryService,
  MemoryObjectStore,
  ObjectStoreBlobService,
  ObjectStoreDirectoryService,
  pathComponent,
  putBlob,
  type ReadOptions,
  verifiedRange,
} from "@tvix/castore";
import { beforeAll, describe, expect, it } from "vitest";
import { type Faults, FaultyBlobService, FaultyObjectStore, seededBytes } from "../src/index.ts";

const NOISE = seededBytes("faults", 1_200_000);
const BLOBS = Array.from({ length: 12 }, (_, i) =>
  NOISE.subarray(i * 1000, i * 1000 + [0, 10, 5000, 300_000, 900_000][i % 5]!),
);

/** The codes that calls may fail with, and no others. */
interface Codes {
  readonly read: readonly ErrorCode[];
  readonly write: readonly ErrorCode[];
}

const FAULTS: readonly (readonly [string, Faults, Codes])[] = [
  ["fails", { fail: 0.1, delay: 0.2 }, { read: ["unavailable"], write: ["unavailable"] }],
  ["cuts off", { truncate: 0.2 }, { read: ["data_loss"], write: [] }],
  ["corrupts", { corrupt: 0.2 }, { read: ["data_loss"], write: [] }],
  [
    "does all of that",
    { fail: 0.05, delay: 0.1, truncate: 0.1, corrupt: 0.1 },
    { read: ["unavailable", "data_loss"], write: ["unavailable"] },
  ],
];

const SEEDS = [1, 2, 3];
const quiet = { onCorrupt: () => undefined };

/** Returns what a call gives, or its error if that has one of some codes. */
async function outcome<T>(
  call: () => Promise<T>,
  codes: readonly ErrorCode[],
): Promise<T | CastoreError> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof CastoreError && codes.includes(error.code)) return error;
    throw error;
  }
}

async function read(
  service: BlobService,
  digest: B3Digest,
  range?: ReadOptions,
): Promise<Uint8Array | undefined> {
  const stream = await service.read(digest, range);
  return stream && (await collectBytes(stream));
}

/** A chain of directories, and its root. */
function closure(depth: number): Directory[] {
  const directories = [Directory.from([])];
  for (let i = 1; i < depth; i++) {
    const child = directories.at(-1)!;
    const { digest } = encodeDirectory(child);
    const node = { type: "directory", digest, size: child.size } as const;
    directories.push(Directory.from([{ name: pathComponent(`level-${i}`), node }]));
  }
  return directories;
}

async function put(service: DirectoryService, directories: readonly Directory[]) {
  await using putter = service.openPutter();
  for (const directory of directories) await putter.put(directory);
  return await putter.close();
}

describe.each(FAULTS)("an object store that %s", (_, faults, codes) => {
  it.each(SEEDS)("makes no blob come back as another, and is healed (seed %i)", async (seed) => {
    const store = new MemoryObjectStore();
    const faulty = new FaultyObjectStore(store, faults, seed);
    await using service = new ObjectStoreBlobService({ store: faulty, ...quiet });
    for (const data of BLOBS) {
      const stored = await outcome(() => putBlob(service, data), codes.write);
      const digest = blake3Digest(data);
      if (!(stored instanceof CastoreError)) expect(stored.equals(digest)).toBe(true);
      const found = await outcome(() => read(service, digest), codes.read);
      if (found instanceof Uint8Array) expect(Buffer.compare(found, data)).toBe(0);
    }
    await using healthy = new ObjectStoreBlobService({ store, ...quiet });
    const digests = await healthy.putMany(BLOBS);
    for (const [i, digest] of digests.entries()) {
      expect(Buffer.compare((await read(healthy, digest))!, BLOBS[i]!)).toBe(0);
    }
  });

  it.each(SEEDS)(
    "fails no read behind it, as the local store of a cache (seed %i)",
    async (seed) => {
      const far = new MemoryBlobService();
      const store = new FaultyObjectStore(new MemoryObjectStore(), faults, seed);
      const near = new ObjectStoreBlobService({ store, ...quiet });
      await using service = new CombinedBlobService({ near, far, onWarning: () => undefined });
      const digests = await far.putMany(BLOBS);
      for (let round = 0; round < 3; round++) {
        for (const [i, digest] of digests.entries()) {
          const data = BLOBS[i]!;
          expect(Buffer.compare((await read(service, digest))!, data)).toBe(0);
          const range = { offset: data.length >> 1, length: 100 };
          const part = await collectBytes((await service.read(digest, range))!);
          const expected = data.subarray(data.length >> 1, (data.length >> 1) + 100);
          expect(Buffer.compare(part, expected)).toBe(0);
        }
        const found = await service.readMany(
          digests.map((digest, i) => ({ digest, size: BLOBS[i]!.length })),
        );
        for (const [i, data] of found.entries()) expect(Buffer.compare(data!, BLOBS[i]!)).toBe(0);
      }
    },
  );

  it.each(SEEDS)(
    "gives the right bytes or fails behind a cache, and is healed (seed %i)",
    async (seed) => {
      const [nearStore, farStore] = [new MemoryObjectStore(), new MemoryObjectStore()];
      await using origin = new ObjectStoreBlobService({ store: farStore, ...quiet });
      const digests = await origin.putMany(BLOBS);
      const ranges: ReadOptions[] = [{}, { offset: 100, length: 200_000 }];
      const readAll = async (service: BlobService, onFailure: (error: CastoreError) => void) => {
        for (const [i, digest] of digests.entries()) {
          for (const range of ranges) {
            const found = await outcome(() => read(service, digest, range), codes.read);
            const { offset = 0, length = Number.POSITIVE_INFINITY } = range;
            const expected = BLOBS[i]!.subarray(offset, offset + length);
            if (found instanceof Uint8Array) expect(Buffer.compare(found, expected)).toBe(0);
            else onFailure(found ?? new CastoreError("data_loss", "it counts as absent"));
          }
        }
      };
      {
        const faultyNear = new FaultyObjectStore(nearStore, faults, seed);
        const faultyFar = new FaultyObjectStore(farStore, faults, seed + 100);
        const openOn = (store: FaultyObjectStore, averageChunkSize: number) =>
          new ObjectStoreBlobService({ store, averageChunkSize, ...quiet });
        const [near, far] = [openOn(faultyNear, 64 * 1024), openOn(faultyFar, 256 * 1024)];
        await using service = new CombinedBlobService({ near, far, onWarning: () => undefined });
        for (let round = 0; round < 3; round++) {
          await readAll(service, () => undefined);
        }
        for (const store of [faultyNear, faultyFar]) expect(store.faults).toBeGreaterThan(0);
      }
      await origin.putMany(BLOBS);
      const near = new ObjectStoreBlobService({ store: nearStore, ...quiet });
      await using service = new CombinedBlobService({
        near,
        far: origin,
        onWarning: () => undefined,
      });
      await readAll(service, (error) => {
        throw error;
      });
    },
  );

  it.each(SEEDS)("makes no tree come back as another, or in part (seed %i)", async (seed) => {
    const directories = closure(20);
    const expected = directories
      .map((directory) => encodeDirectory(directory).digest.hex)
      .toReversed();
    const root = B3Digest.fromBytes(Buffer.from(expected[0]!, "hex"));
    const store = new FaultyObjectStore(new MemoryObjectStore(), faults, seed);
    await using faulty = new ObjectStoreDirectoryService({ store, ...quiet });
    const readTree = async (service: DirectoryService) => {
      const found = await Array.fromAsync(service.getRecursive(root));
      return found.map((directory) => encodeDirectory(directory).digest.hex);
    };
    for (let round = 0; round < 10; round++) {
      await outcome(() => put(faulty, directories), codes.write);
      const found = await outcome(() => readTree(faulty), codes.read);
      if (Array.isArray(found)) expect([[], expected]).toContainEqual(found);
    }

    const far = new MemoryDirectoryService();
    await put(far, directories);
    await using service = new CacheDirectoryService({
      near: faulty,
      far,
      onWarning: () => undefined,
    });
    for (let round = 0; round < 5; round++) {
      expect(await readTree(service)).toEqual(expected);
      expect(encodeDirectory((await service.get(root))!).digest.hex).toBe(root.hex);
    }
  });
});

/** Parts of a blob, and all of it. */
const RANGES: readonly ReadOptions[] = [
  { offset: 700_000, length: 1000 },
  { length: 300_000 },
  { offset: 1_199_999 },
  { offset: 1_200_000 },
  {},
];

function expectPart(found: Uint8Array, { offset = 0, length = NOISE.length }: ReadOptions): void {
  expect(Buffer.compare(found, NOISE.subarray(offset, offset + length))).toBe(0);
}

describe("an object store in which lists of chunks are damaged", () => {
  const damage: Faults = {
    truncate: 0.2,
    corrupt: 0.5,
    spares: (key) => key.startsWith("chunks/"),
  };
  const stored = new MemoryObjectStore();
  const far = new MemoryBlobService();
  const digest = blake3Digest(NOISE);

  beforeAll(async () => {
    await putBlob(new ObjectStoreBlobService({ store: stored }), NOISE);
    await putBlob(far, NOISE);
  });

  /** Opens a store of its own with what is stored, but for the lists of digests if tvix has written it. */
  async function open(seed: number, isOurs: boolean): Promise<ObjectStoreBlobService> {
    const store = new MemoryObjectStore();
    for await (const { key } of stored.list("")) {
      if (!isOurs && key.startsWith("lists/")) continue;
      await store.put(key, await collectBytes((await stored.get(key))!));
    }
    const faulty = new FaultyObjectStore(store, damage, seed);
    return new ObjectStoreBlobService({ store: faulty, ...quiet });
  }

  it.each([true, false])(
    "gives no other bytes, of a part or of the whole (lists with digests: %s)",
    async (isOurs) => {
      let whole = 0;
      for (let seed = 1; seed <= 60; seed++) {
        const service = await open(seed, isOurs);
        const range = RANGES[seed % RANGES.length]!;
        const found = await outcome(() => read(service, digest, range), ["data_loss"]);
        if (found instanceof Uint8Array) expectPart(found, range);
        const opened = await outcome(() => service.open(digest), ["data_loss"]);
        if (opened === undefined || opened instanceof CastoreError) continue;
        whole += 1;
        expect(opened.size).toBe(NOISE.length);
      }
      expect(whole).toBeGreaterThan(12);
    },
  );

  it("gives no other bytes as the local store of a cache, and fails no read", async () => {
    for (let seed = 1; seed <= 60; seed++) {
      const near = await open(seed, true);
      await using service = new CombinedBlobService({ near, far, onWarning: () => undefined });
      const range = RANGES[seed % RANGES.length]!;
      expectPart((await read(service, digest, range))!, range);
    }
  });
});

describe("a blob service whose contents are others", () => {
  it("gives no other bytes where every part is proven by the digest of the whole", async () => {
    const backend = new MemoryBlobService();
    const digest = await putBlob(backend, NOISE);
    let right = 0;
    for (let seed = 1; seed <= 50; seed++) {
      const service = new FaultyBlobService(backend, { truncate: 0.05, corrupt: 0.05 }, seed);
      const range = RANGES[seed % RANGES.length]!;
      const found = await outcome(async () => {
        return await collectBytes((await verifiedRange(service, digest, range))!);
      }, ["data_loss"]);
      if (found instanceof CastoreError) continue;
      expectPart(found, range);
      right += 1;
    }
    expect(right).toBeGreaterThan(5);
    expect(right).toBeLessThan(45);
  });
});
