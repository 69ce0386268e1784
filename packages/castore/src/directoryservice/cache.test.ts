import { describe, expect, it, vi } from "vitest";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import { Directory } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import { pathComponent } from "../model/path.ts";
import { CacheDirectoryService } from "./cache.ts";
import type { DirectoryService } from "./directory-service.ts";
import { encodeDirectory } from "./encoded-directory.ts";
import { MemoryDirectoryService } from "./memory.ts";

/** Directories in one another, of which the inner ones are in several, leaves first. */
function tree(seed = 0): Directory[] {
  const directories = [Directory.from([])];
  for (let i = 0; i < 30; i++) {
    const children = directories.slice(-2).map((child, j) => ({
      name: pathComponent(`${j}`),
      node: { type: "directory", digest: encodeDirectory(child).digest, size: child.size } as const,
    }));
    const file = { type: "symlink", target: pathComponent(`target ${i + seed}`) as never } as const;
    directories.push(Directory.from([...children, { name: pathComponent("link"), node: file }]));
  }
  return directories;
}

const TREE = tree();
const ROOT = encodeDirectory(TREE.at(-1)!).digest;

async function put(service: DirectoryService): Promise<void> {
  await using putter = service.openPutter();
  for (const directory of TREE) await putter.put(directory);
  await putter.close();
}

async function count(service: DirectoryService, digest: B3Digest): Promise<number> {
  return (await Array.fromAsync(service.getRecursive(digest))).length;
}

/** Notes how often trees are read. */
class CountingDirectoryService extends MemoryDirectoryService {
  readonly trees: string[] = [];

  override getRecursive(digest: B3Digest, options?: AbortOptions) {
    this.trees.push(digest.hex);
    return super.getRecursive(digest, options);
  }
}

describe("CacheDirectoryService", () => {
  it("stores the whole tree after its root was read, once for all who read the root", async () => {
    const [near, far] = [new MemoryDirectoryService(), new CountingDirectoryService()];
    await put(far);
    await using service = new CacheDirectoryService({ near, far });
    const asked = Array.from({ length: 10 }, () => service.get(ROOT));
    for (const found of await Promise.all(asked)) expect(found).toBeDefined();
    await vi.waitFor(async () => expect(await count(near, ROOT)).toBe(TREE.length));
    expect(far.trees).toEqual([ROOT.hex]);
  });

  it("stores a tree that was read recursively", async () => {
    const [near, far] = [new MemoryDirectoryService(), new CountingDirectoryService()];
    await put(far);
    await using service = new CacheDirectoryService({ near, far });
    expect(await count(service, ROOT)).toBe(TREE.length);
    await vi.waitFor(async () => expect(await count(near, ROOT)).toBe(TREE.length));
    expect(await count(service, ROOT)).toBe(TREE.length);
    expect(far.trees).toHaveLength(1);
  });

  it("stores nothing of a tree that was not read to its end, or is damaged", async () => {
    const [near, far] = [new MemoryDirectoryService(), new MemoryDirectoryService()];
    await put(far);
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    await using service = new CacheDirectoryService({ near, far, onWarning });
    for await (const _ of service.getRecursive(ROOT)) break;
    expect(await near.get(ROOT)).toBeUndefined();
    const read = far.getRecursive.bind(far);
    far.getRecursive = async function* (digest, options) {
      let left = 5;
      for await (const directory of read(digest, options)) {
        if (left-- === 0) throw new CastoreError("data_loss", "it is damaged");
        yield directory;
      }
    };
    await expect(count(service, ROOT)).rejects.toThrow("it is damaged");
    await service.get(ROOT);
    await vi.waitFor(() => expect(warnings.join()).toContain("it is damaged"));
    expect(await near.get(ROOT)).toBeUndefined();
  });

  it("goes on from the origin where the local store breaks off, with each directory once", async () => {
    const [near, far] = [new MemoryDirectoryService(), new MemoryDirectoryService()];
    await put(near);
    await put(far);
    const read = near.getRecursive.bind(near);
    near.getRecursive = async function* (digest, options) {
      let left = 5;
      for await (const directory of read(digest, options)) {
        if (left-- === 0) throw new CastoreError("data_loss", "it is damaged");
        yield directory;
      }
    };
    await using service = new CacheDirectoryService({ near, far, onWarning: () => undefined });
    const found = await Array.fromAsync(service.getRecursive(ROOT));
    const digests = found.map((directory) => encodeDirectory(directory).digest.hex);
    expect(new Set(digests).size).toBe(TREE.length);
    expect(digests).toHaveLength(TREE.length);
  });

  it("fails where the local store breaks off and the origin does not have the tree", async () => {
    const near = new MemoryDirectoryService();
    await put(near);
    const read = near.getRecursive.bind(near);
    near.getRecursive = async function* (digest, options) {
      let left = 5;
      for await (const directory of read(digest, options)) {
        if (left-- === 0) throw new CastoreError("data_loss", "it is damaged");
        yield directory;
      }
    };
    const far = new MemoryDirectoryService();
    await using service = new CacheDirectoryService({ near, far, onWarning: () => undefined });
    await expect(count(service, ROOT)).rejects.toMatchObject({
      code: "data_loss",
      message: expect.stringContaining(`${ROOT}`),
    });
  });

  it("reads many directories from both stores, and stores the trees of those of the origin", async () => {
    const [near, far] = [new MemoryDirectoryService(), new MemoryDirectoryService()];
    await put(far);
    const leaf = Directory.from([]);
    {
      await using putter = near.openPutter();
      await putter.put(leaf);
      await putter.close();
    }
    const getFar = vi.spyOn(far, "getMany");
    await using service = new CacheDirectoryService({ near, far });
    const absent = encodeDirectory(tree(1)[1]!).digest;
    const digests = [ROOT, encodeDirectory(leaf).digest, absent];
    const found = await service.getMany(digests);
    expect(found.map((directory) => directory && encodeDirectory(directory).digest.hex)).toEqual([
      ROOT.hex,
      digests[1]!.hex,
      undefined,
    ]);
    expect(getFar.mock.calls[0]![0]).toEqual([ROOT, absent]);
    expect(await service.hasMany(digests)).toEqual([true, true, false]);
    await vi.waitFor(async () => expect(await count(near, ROOT)).toBe(TREE.length));
  });

  it("reads a tree from the origin that the local store has lost", async () => {
    const [near, far] = [new MemoryDirectoryService(), new MemoryDirectoryService()];
    await put(near);
    await put(far);
    near.getRecursive = async function* () {};
    await using service = new CacheDirectoryService({ near, far, onWarning: () => undefined });
    expect(await count(service, ROOT)).toBe(TREE.length);
  });

  it("stores nothing locally that the origin refused", async () => {
    const [near, far] = [new MemoryDirectoryService(), new MemoryDirectoryService()];
    const open = far.openPutter.bind(far);
    far.openPutter = (options) => {
      const putter = open(options);
      putter.close = () => Promise.reject(new CastoreError("unavailable", "the server is gone"));
      return putter;
    };
    const service = new CacheDirectoryService({ near, far });
    await expect(put(service)).rejects.toThrow("the server is gone");
    expect(await near.get(ROOT)).toBeUndefined();
  });
});
