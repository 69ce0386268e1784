import {
  type AbortOptions,
  type B3Digest,
  type BlobService,
  blake3Digest,
  CastoreError,
  type ChunkList,
  type ChunkMeta,
  type ClosureServices,
  type CopyProgress,
  collectBytes,
  copyBlob,
  copyClosure,
  Directory,
  type DirectoryNode,
  encodeDirectory,
  importPath,
  MemoryBlobService,
  MemoryDirectoryService,
  MemoryObjectStore,
  type Node,
  ObjectStoreDirectoryService,
  openBlobService,
  openDirectoryService,
  pathComponent,
  putBlob,
  type ReadOptions,
  walkClosure,
} from "@tvix/castore";
import { castoreServices } from "@tvix/castore/rpc";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { chunksOf, readTreeExpected, readTreeSpecs, seededBytes, writeTree } from "../src/index.ts";
import { disposingOf, overGrpc } from "./grpc-over.ts";
import { temporaryFolder } from "./temporary-folder.ts";

interface Stores extends ClosureServices, AsyncDisposable {}

function stores(blobService: BlobService, rest: Omit<ClosureServices, "blobService">): Stores {
  const { directoryService } = rest;
  return {
    blobService,
    directoryService,
    async [Symbol.asyncDispose]() {
      await directoryService[Symbol.asyncDispose]();
      await blobService[Symbol.asyncDispose]();
    },
  };
}

async function inMemory(): Promise<Stores> {
  return stores(new MemoryBlobService(), { directoryService: new MemoryDirectoryService() });
}

async function onDisk(): Promise<Stores> {
  const folder = temporaryFolder();
  const blobService = disposingOf(await openBlobService(`pack://${folder.path}/blobs`), folder);
  const directoryService = await openDirectoryService(`sqlite://${folder.path}/directories`);
  return stores(blobService, { directoryService });
}

async function inBucket(): Promise<Stores> {
  const directoryService = await openDirectoryService("objectstore+memory:///");
  return stores(await openBlobService("objectstore+memory:///"), { directoryService });
}

async function behindServer(): Promise<Stores> {
  const { blobService, directoryService } = await onDisk();
  const services = castoreServices({ blobService, directoryService });
  return stores(await overGrpc(blobService, services, openBlobService, "streams"), {
    directoryService: await overGrpc(directoryService, services, openDirectoryService, "streams"),
  });
}

const PLACES = { inMemory, onDisk, inBucket, behindServer };
const PAIRS = [
  ["inMemory", "onDisk"],
  ["onDisk", "behindServer"],
  ["behindServer", "onDisk"],
  ["behindServer", "behindServer"],
  ["onDisk", "inBucket"],
  ["inBucket", "inMemory"],
] as const;

/** A service, and the digests of the blobs and chunks that were read from it, and that were stored in it. */
function watched(target: BlobService): { service: BlobService; read: string[]; stored: string[] } {
  const read: string[] = [];
  const stored: string[] = [];
  const service: BlobService = {
    has: (...args) => target.has(...args),
    statMany: (...args) => target.statMany(...args),
    open: (...args) => target.open(...args),
    hasMany: (...args) => target.hasMany(...args),
    readMany(blobs, options) {
      read.push(...blobs.map(({ digest }) => digest.hex));
      return target.readMany(blobs, options);
    },
    read(digest, options) {
      read.push(digest.hex);
      return target.read(digest, options);
    },
    async putMany(blobs, options) {
      const digests = await target.putMany(blobs, options);
      stored.push(...digests.map(({ hex }) => hex));
      return digests;
    },
    async putList(digest, ...args) {
      await target.putList(digest, ...args);
      stored.push(digest.hex);
    },
    keepsFrames: target.keepsFrames ?? false,
    async putFrames(batch, options) {
      await target.putFrames(batch, options);
      stored.push(...Array.from(batch.chunks, ({ digest }) => digest.hex));
    },
    frames(chunks, options) {
      read.push(...Array.from(chunks, ({ digest }) => digest.hex));
      return target.frames(chunks, options);
    },
    openWriter(options) {
      const writer = target.openWriter(options);
      return {
        write: (data) => writer.write(data),
        async close() {
          const digest = await writer.close();
          stored.push(digest.hex);
          return digest;
        },
        [Symbol.asyncDispose]: () => writer[Symbol.asyncDispose](),
      };
    },
    [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
  };
  return { service, read, stored };
}

/** Loses a blob that it has. */
class LossyBlobService extends MemoryBlobService {
  lost: { readonly digest: B3Digest; readonly state: "missing" | "damaged" } | undefined;

  override async has(digest: B3Digest): Promise<boolean> {
    return this.#isLost(digest) ? this.lost!.state === "damaged" : await super.has(digest);
  }

  override async read(digest: B3Digest, options?: ReadOptions) {
    if (!this.#isLost(digest)) return await super.read(digest, options);
    if (this.lost!.state === "missing") return undefined;
    return await super.read(digest, { length: 1000 });
  }

  override async readMany(blobs: readonly ChunkMeta[]) {
    const contents = await super.readMany(blobs);
    return contents.map((data, i) => (this.#isLost(blobs[i]!.digest) ? undefined : data));
  }

  override async *frames(chunks: ChunkList, options?: AbortOptions) {
    let i = 0;
    for await (const frame of super.frames(chunks, options)) {
      const isLost = this.#isLost(chunks.digestAt(i++));
      if (isLost && this.lost!.state === "missing") throw new CastoreError("data_loss", "lost");
      yield isLost ? frame.fill(0, -3) : frame;
    }
  }

  #isLost(digest: B3Digest): boolean {
    return this.lost?.digest.equals(digest) === true;
  }
}

/** Loses directories that it has. */
class LossyDirectoryService extends MemoryDirectoryService {
  readonly lost = new Set<string>();

  override async get(digest: B3Digest) {
    return this.lost.has(digest.hex) ? undefined : await super.get(digest);
  }

  override openPutter(...args: Parameters<MemoryDirectoryService["openPutter"]>) {
    const putter = super.openPutter(...args);
    const put = putter.put.bind(putter);
    putter.put = async (directory) => {
      await put(directory);
      this.lost.delete(encodeDirectory(directory).digest.hex);
    };
    return putter;
  }
}

/** Returns the tree of a root node as text, for comparison. */
async function closureOf({ blobService, directoryService }: ClosureServices, root: Node) {
  const directories: string[] = [];
  const blobs: string[] = [];
  for await (const item of walkClosure(directoryService, root)) {
    if (item.type === "directory") {
      directories.push(encodeDirectory(item.directory).digest.hex);
      continue;
    }
    const found = await Array.fromAsync((await blobService.read(item.digest))!, Buffer.from);
    const contents = Buffer.concat(found);
    expect(contents.length).toBe(Number(item.size));
    expect(blake3Digest(contents).hex).toBe(item.digest.hex);
    blobs.push(item.digest.hex);
  }
  return { directories: directories.toSorted(), blobs: blobs.toSorted() };
}

const folder = temporaryFolder();
const source = `${folder.path}/source`;
const LARGE = seededBytes("large", 2_000_000);
/** The same, but for some bytes in the middle. */
const CHANGED = Buffer.from(LARGE);
CHANGED.set(seededBytes("changed", 1000), 1_000_000);

beforeAll(async () => {
  await writeTree(
    {
      tree: "copied",
      name: "copied",
      entries: [
        ...Array.from({ length: 400 }, (_, i) => ({
          path: `small/${i % 7}/${i}`,
          type: "file" as const,
          content: { stream: `small ${i % 300}`, size: (i % 300) * 37 },
          executable: i % 5 === 0,
        })),
        { path: "empty", type: "directory" },
        { path: "link", type: "symlink", target: "small" },
        { path: "zeros", type: "file", content: { fill: 0, size: 1_000_000 }, executable: false },
        {
          path: "large",
          type: "file",
          content: { stream: "large", size: 2_000_000 },
          executable: true,
        },
      ],
    },
    source,
  );
});
afterAll(() => folder[Symbol.dispose]());

const put = ({ blobService, directoryService }: ClosureServices, path = source) =>
  importPath(path, { blobService, directoryService });

describe("copyClosure", () => {
  it.each(PAIRS)("copies a tree from %s to %s, and once", async (from, to) => {
    await using near = await PLACES[from]();
    await using far = await PLACES[to]();
    const root = await put(near);
    const { service, stored } = watched(far.blobService);
    const target = { ...far, blobService: service };
    const steps: CopyProgress[] = [];
    const all = await copyClosure(near, target, root, { onProgress: (at) => steps.push(at) });
    const closure = await closureOf(far, root);
    expect(closure).toEqual(await closureOf(near, root));
    expect(new Set(stored).size).toBe(stored.length);
    const isBlob = new Set(closure.blobs); // chunks are stored as well
    expect(all.copiedBlobs).toBe(stored.filter((hex) => isBlob.has(hex)).length);
    expect(all.blobs).toBe(closure.blobs.length);
    expect(all.directories).toBe(closure.directories.length);
    expect(all.copiedBytes).toBe(
      3_000_000 + Array.from({ length: 300 }, (_, i) => i * 37).reduce((a, b) => a + b),
    );
    expect(steps.at(-1)).toEqual(all);

    const none = { directories: 0, blobs: 0, bytes: 0, copiedBlobs: 0, copiedBytes: 0 };
    expect(await copyClosure(near, target, root)).toEqual(none);
    const { copiedBlobs } = await copyClosure(near, target, root, { repair: true });
    expect(copiedBlobs).toBe(0);
  });

  it("copies the trees that the reference made", async () => {
    for (const [i, spec] of readTreeSpecs().entries()) {
      await using from = await inMemory();
      await using to = await onDisk();
      await writeTree(spec, `${folder.path}/${i}`);
      const root = await put(from, `${folder.path}/${i}`);
      await copyClosure(from, to, root);
      const { directories, blobs } = await closureOf(to, root);
      const expected = readTreeExpected().find(({ tree }) => tree === spec.tree)!;
      expect(directories).toHaveLength(expected.directoriesRootToLeaves_base64.length);
      const hex = (base64: string) => Buffer.from(base64, "base64").toString("hex");
      expect(blobs).toEqual(Object.keys(expected.blobs).map(hex).toSorted());
    }
  });

  it("sends no blob that the target has", async () => {
    await using from = await inMemory();
    await using to = await onDisk();
    const root = await put(from);
    await putBlob(to.blobService, seededBytes("small 100", 3700));
    await putBlob(to.blobService, LARGE);
    const { service, stored } = watched(to.blobService);
    await copyClosure(from, { ...to, blobService: service }, root);
    expect(stored).not.toContain(blake3Digest(LARGE).hex);
    expect(stored).not.toContain(blake3Digest(seededBytes("small 100", 3700)).hex);
    expect(await closureOf(to, root)).toEqual(await closureOf(from, root));
  });

  it("makes up for blobs that the target lost", async () => {
    await using from = await inMemory();
    await using to = await inMemory();
    const root = await put(from);
    await copyClosure(from, to, root);
    const lost = { ...to, blobService: new MemoryBlobService() };
    await copyClosure(from, lost, root);
    expect(await lost.blobService.has(blake3Digest(LARGE))).toBe(false);
    await copyClosure(from, lost, root, { repair: true });
    expect(await closureOf(lost, root)).toEqual(await closureOf(from, root));
  });

  it("makes up for directories that the target lost, wherever", async () => {
    const leaf = encodeDirectory(Directory.from([]));
    const chain = [leaf];
    for (let i = 0; i < 5; i++) {
      const { digest, directory } = chain.at(-1)!;
      const node = { type: "directory", digest, size: directory.size } as const;
      chain.push(encodeDirectory(Directory.from([{ name: pathComponent("below"), node }])));
    }
    const { digest, directory } = chain.at(-1)!;
    const root: Node = { type: "directory", digest, size: directory.size };
    await using from = await inMemory();
    await using putter = from.directoryService.openPutter();
    for (const { directory } of chain) await putter.put(directory);
    await putter.close();

    const lossy = new LossyDirectoryService();
    const store = new MemoryObjectStore();
    const bucket = new ObjectStoreDirectoryService({ store, onCorrupt: () => undefined });
    const loseOfBucket = async (digest: B3Digest) =>
      await store.delete(`dirs-inner/b3/${digest.hex.slice(0, 4)}/${digest.hex}`);
    for (const [directoryService, lose] of [
      [lossy, async ({ hex }: B3Digest) => lossy.lost.add(hex)],
      [bucket, loseOfBucket],
    ] as const) {
      const to = { blobService: new MemoryBlobService(), directoryService };
      await copyClosure(from, to, root);
      for (const i of [0, 2, 3]) await lose(chain[i]!.digest);
      await copyClosure(from, to, root, { repair: true });
      for (const { digest } of chain) {
        const found = await directoryService.get(digest);
        expect(encodeDirectory(found!).digest.hex).toBe(digest.hex);
      }
      expect(await Array.fromAsync(directoryService.getRecursive(digest))).toHaveLength(6);
    }
  });

  it("makes up for a tree that the target has damaged", async () => {
    const store = new MemoryObjectStore();
    const directoryService = new ObjectStoreDirectoryService({
      store,
      onCorrupt: () => undefined,
    });
    await using from = await inMemory();
    const to = { blobService: new MemoryBlobService(), directoryService };
    const root = (await put(from)) as DirectoryNode;
    await copyClosure(from, to, root);
    const key = `dirs/b3/${root.digest.hex.slice(0, 4)}/${root.digest.hex}`;
    const tree = await collectBytes((await store.get(key))!);
    await store.put(key, tree.subarray(0, tree.length >> 1));
    await copyClosure(from, to, root, { repair: true });
    expect(await closureOf(to, root)).toEqual(await closureOf(from, root));
    expect(await collectBytes((await store.get(key))!)).toEqual(tree);
  });

  it("reads only those chunks of the blobs of a tree that the target lacks", async () => {
    await using from = await behindServer();
    await using to = await onDisk();
    const digest = await putBlob(from.blobService, CHANGED);
    await putBlob(to.blobService, LARGE);
    const { service, read } = watched(from.blobService);
    const file: Node = { type: "file", digest, size: 2_000_000n, executable: false };
    await copyClosure({ ...from, blobService: service }, to, file);
    expect(await closureOf(to, file)).toEqual({ directories: [], blobs: [digest.hex] });
    expect(read).not.toContain(digest.hex);
    expect(read.length).toBeLessThan(5);
  });

  it.each([
    ["missing", "not_found"],
    ["damaged", "data_loss"],
  ] as const)("shows no directory when a blob is %s", async (state, code) => {
    const small = seededBytes("small 100", 3700);
    const cases = [
      { contents: LARGE, place: inMemory },
      { contents: small, place: inMemory },
      { contents: small, place: onDisk }, // which keeps frames
    ];
    for (const { contents, place } of cases) {
      const blobService = new LossyBlobService();
      await using from = { ...(await inMemory()), blobService };
      await using to = await place();
      const root = await put(from);
      const digest = blake3Digest(contents);
      blobService.lost = { digest, state };
      const message = expect.stringContaining(`${digest}`);
      await expect(copyClosure(from, to, root)).rejects.toMatchObject({ code, message });
      for await (const item of walkClosure(from.directoryService, root)) {
        if (item.type === "blob") continue;
        const found = await to.directoryService.get(encodeDirectory(item.directory).digest);
        expect(found).toBeUndefined();
      }
      expect(await to.blobService.has(digest)).toBe(false);
    }
  });

  it("refuses a tree that the source does not have, and file nodes of a wrong size", async () => {
    await using from = await inMemory();
    await using to = await inMemory();
    const digest = blake3Digest(LARGE);
    const missing: Node = { type: "directory", digest, size: 1n };
    await expect(copyClosure(from, to, missing)).rejects.toMatchObject({ code: "not_found" });
    await putBlob(from.blobService, LARGE);
    for (const size of [5n, 1_999_999n, 2_000_001n]) {
      const file: Node = { type: "file", digest, size, executable: false };
      await expect(copyClosure(from, await inMemory(), file)).rejects.toMatchObject({
        code: "data_loss",
      });
    }
  });

  it("stops when it is cancelled, before and meanwhile", async () => {
    await using from = await inMemory();
    await using to = await onDisk();
    const root = await put(from);
    const reason = new Error("enough");
    const before = { signal: AbortSignal.abort(reason) };
    await expect(copyClosure(from, to, root, before)).rejects.toBe(reason);
    const controller = new AbortController();
    const onProgress = ({ copiedBlobs }: CopyProgress) => {
      if (copiedBlobs > 0) controller.abort(reason);
    };
    const { signal } = controller;
    await expect(copyClosure(from, to, root, { signal, onProgress })).rejects.toBe(reason);
    expect(await to.directoryService.get((root as DirectoryNode).digest)).toBeUndefined();
    await copyClosure(from, to, root);
    expect(await closureOf(to, root)).toEqual(await closureOf(from, root));
  });
});

describe("copyBlob", () => {
  it("copies what the target lacks", async () => {
    await using from = await inMemory();
    await using to = await onDisk();
    const digest = await putBlob(from.blobService, LARGE);
    expect(await copyBlob(from.blobService, to.blobService, digest)).toBe(true);
    expect(await to.blobService.has(digest)).toBe(true);
    expect(await copyBlob(from.blobService, to.blobService, digest)).toBe(false);
    const none = copyBlob(from.blobService, to.blobService, blake3Digest(CHANGED));
    await expect(none).rejects.toMatchObject({ code: "not_found" });
  });

  it("sends only chunks that the target lacks", async () => {
    for (const place of [onDisk, inBucket]) {
      await using from = await behindServer();
      await using to = await place();
      const digest = await putBlob(from.blobService, CHANGED);
      const old = await putBlob(to.blobService, LARGE);
      const isOld = new Set((await chunksOf(to.blobService, old))!.map(({ digest }) => digest.hex));
      const chunks = (await chunksOf(from.blobService, digest))!.map(({ digest }) => digest.hex);
      const { service: source, read } = watched(from.blobService);
      await copyBlob(source, to.blobService, digest);
      expect(read).toEqual(chunks.filter((hex) => !isOld.has(hex)));
      expect(read.length).toBeLessThan(5);
      const found = await Array.fromAsync((await to.blobService.read(digest))!, Buffer.from);
      expect(Buffer.concat(found).equals(CHANGED)).toBe(true);
    }
  });
});
