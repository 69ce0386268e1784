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
function tree(): Directory[] {
  const directories = [Directory.from([])];
  for (let i = 0; i < 30; i++) {
    const children = directories.slice(-2).map((child, j) => ({
      name: pathComponent(`${j}`),
      node: { type: "directory", digest: encodeDirectory(child).digest, size: child.size } as const,
    }));
    const file = { type: "symlink", target: pathComponent(`target ${i}`) as never } as const;
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
  it("keeps a whole tree when its root is asked for, once for all who ask for parts of it", async () => {
    const [near, far] = [new MemoryDirectoryService(), new CountingDirectoryService()];
    await put(far);
    await using service = new CacheDirectoryService({ near, far });
    const asked = Array.from({ length: 10 }, () => service.get(ROOT));
    for (const found of await Promise.all(asked)) expect(found).toBeDefined();
    await vi.waitFor(async () => expect(await count(near, ROOT)).toBe(TREE.length));
    expect(far.trees).toEqual([ROOT.hex]);
  });

  it("keeps a tree that is read whole", async () => {
    const [near, far] = [new MemoryDirectoryService(), new CountingDirectoryService()];
    await put(far);
    await using service = new CacheDirectoryService({ near, far });
    expect(await count(service, ROOT)).toBe(TREE.length);
    await vi.waitFor(async () => expect(await count(near, ROOT)).toBe(TREE.length));
    expect(await count(service, ROOT)).toBe(TREE.length);
    expect(far.trees).toHaveLength(1);
  });

  it("keeps nothing of a tree that is not read to its end, or is damaged", async () => {
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

  it("takes from the far half what the near one cannot give to its end, each directory once", async () => {
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

  it("takes a tree from the far half that the near one loses when its root was found", async () => {
    const [near, far] = [new MemoryDirectoryService(), new MemoryDirectoryService()];
    await put(near);
    await put(far);
    near.getRecursive = async function* () {};
    await using service = new CacheDirectoryService({ near, far, onWarning: () => undefined });
    expect(await count(service, ROOT)).toBe(TREE.length);
  });

  it("has stored nothing near that is not far when the far half fails", async () => {
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
