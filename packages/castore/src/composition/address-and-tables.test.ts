import { describe, expect, it, vi } from "vitest";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import { encodeDirectory } from "../directoryservice/encoded-directory.ts";
import { MemoryDirectoryService } from "../directoryservice/memory.ts";
import type { B3Digest } from "../model/digest.ts";
import { Directory } from "../model/directory.ts";
import { pathComponent } from "../model/path.ts";
import { Composition } from "./composition.ts";
import { BLOB_SERVICES, DIRECTORY_SERVICES } from "./registries.ts";
import { memoryType } from "./service-types.ts";

const LEAF = Directory.from([]);
const ROOT = folderOf(LEAF);
const digestOf = (directory: Directory) => encodeDirectory(directory).digest;

function folderOf(directory: Directory): Directory {
  const { digest } = encodeDirectory(directory);
  const node = { type: "directory", digest, size: directory.size } as const;
  return Directory.from([{ name: pathComponent("inner"), node }]);
}

async function put(service: DirectoryService): Promise<B3Digest> {
  await using putter = service.openPutter();
  await putter.put(LEAF);
  await putter.put(ROOT);
  return await putter.close();
}

async function sizeOf(service: DirectoryService): Promise<number> {
  return (await Array.fromAsync(service.getRecursive(digestOf(ROOT)))).length;
}

/** A cache, and the two services in memory that it was made of. */
interface Cache extends AsyncDisposable {
  readonly cache: DirectoryService;
  readonly near: DirectoryService;
  readonly far: DirectoryService;
}

/** Opens what an address, or the tables of a file, say, and keeps hold of its halves. */
async function open(described: { address: string } | { tables: string }): Promise<Cache> {
  const halves: DirectoryService[] = [];
  const memory = memoryType<DirectoryService>(() => {
    const half = new MemoryDirectoryService();
    halves.push(half);
    return half;
  });
  const registries = {
    blobservices: BLOB_SERVICES,
    directoryservices: {
      ...DIRECTORY_SERVICES,
      types: { ...DIRECTORY_SERVICES.types, memory },
    },
  };
  const composition =
    "address" in described
      ? new Composition(registries, { directoryservices: { default: described.address } })
      : await Composition.parseToml(registries, described.tables);
  const cache = await composition.service("directoryservices");
  expect(halves).toHaveLength(2);
  const [near, far] = halves;
  const close = () => composition[Symbol.asyncDispose]();
  return { cache, near: near!, far: far!, [Symbol.asyncDispose]: close };
}

describe.each([
  ["the address", { address: "cache://?near=memory://&far=memory://" }],
  ["the address, encoded", { address: "cache://?near=memory%3A%2F%2F&far=memory%3A%2F%2F" }],
  [
    "tables",
    {
      tables: `
        [directoryservices.memory1]
        type = "memory"
        [directoryservices.memory2]
        type = "memory"
        [directoryservices.default]
        type = "cache"
        near = "memory1"
        far = "memory2"
      `,
    },
  ],
])("a cache of two memories, described by %s", (_, described) => {
  it("puts a tree into both halves", async () => {
    await using opened = await open(described);
    expect(await put(opened.cache)).toEqual(digestOf(ROOT));
    for (const service of [opened.near, opened.far, opened.cache]) {
      expect(await sizeOf(service)).toBe(2);
      expect(await service.get(digestOf(LEAF))).toEqual(LEAF);
    }
  });

  it("reads what the local store has, and leaves the origin alone", async () => {
    await using opened = await open(described);
    await put(opened.near);
    expect(await opened.cache.get(digestOf(ROOT))).toEqual(ROOT);
    expect(await sizeOf(opened.cache)).toBe(2);
    expect(await sizeOf(opened.far)).toBe(0);
  });

  it("stores locally what is got from the origin", async () => {
    await using opened = await open(described);
    await put(opened.far);
    expect(await opened.cache.get(digestOf(ROOT))).toEqual(ROOT);
    await vi.waitFor(async () => expect(await sizeOf(opened.near)).toBe(2));
  });

  it("stores locally a tree that is read from the origin", async () => {
    await using opened = await open(described);
    await put(opened.far);
    expect(await sizeOf(opened.cache)).toBe(2);
    await vi.waitFor(async () => expect(await sizeOf(opened.near)).toBe(2));
  });

  it("has nothing of what is absent, dropped or refused", async () => {
    await using opened = await open(described);
    {
      await using dropped = opened.cache.openPutter();
      await dropped.put(LEAF);
    }
    await using putter = opened.cache.openPutter();
    await expect(putter.put(ROOT)).rejects.toMatchObject({ code: "invalid_argument" });
    for (const service of [opened.cache, opened.near, opened.far]) {
      expect(await service.get(digestOf(LEAF))).toBeUndefined();
      expect(await sizeOf(service)).toBe(0);
    }
  });

  it("gives up every call that is cancelled", async () => {
    await using opened = await open(described);
    const reason = new Error("enough");
    const signal = AbortSignal.abort(reason);
    const digest = digestOf(ROOT);
    await expect(opened.cache.get(digest, { signal })).rejects.toBe(reason);
    const reading = Array.fromAsync(opened.cache.getRecursive(digest, { signal }));
    await expect(reading).rejects.toBe(reason);
    await using putter = opened.cache.openPutter({ signal });
    await expect(putter.put(LEAF)).rejects.toBe(reason);
  });
});
