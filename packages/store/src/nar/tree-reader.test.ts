import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type B3Digest,
  Directory,
  type DirectoryNode,
  type DirectoryService,
  encodeDirectory,
  MemoryBlobService,
  MemoryDirectoryService,
  pathComponent,
  symlinkTarget,
} from "@tvix/castore";
import { afterAll, describe, expect, it } from "vitest";
import { importPath } from "../import.ts";
import { MemoryPathInfoService } from "../pathinfoservice/memory.ts";
import { listNar } from "./listing.ts";
import { renderNar } from "./renderer.ts";
import { SeekableNar } from "./seekable.ts";
import { SpillingMap } from "./spilling-map.ts";
import { TreeReader } from "./tree-reader.ts";

const folder = mkdtempSync(join(tmpdir(), "trees-"));
afterAll(() => rmSync(folder, { recursive: true }));

const asked: string[] = [];
const directories = new MemoryDirectoryService();

/** Passes calls on, and notes those that read. */
const directoryService: DirectoryService = {
  get(digest, options) {
    asked.push("get");
    return directories.get(digest, options);
  },
  getMany(digests, options) {
    asked.push("getMany");
    return directories.getMany(digests, options);
  },
  hasMany: (digests, options) => directories.hasMany(digests, options),
  getRecursive(digest, options) {
    asked.push("getRecursive");
    return directories.getRecursive(digest, options);
  },
  openPutter: (options) => directories.openPutter(options),
  [Symbol.asyncDispose]: () => directories[Symbol.asyncDispose](),
};

const services = {
  blobService: new MemoryBlobService(),
  directoryService,
  pathInfoService: new MemoryPathInfoService(),
};

/** A tree whose directories are too many to be kept in memory: some 4 MB of them, encoded. */
const LARGE = 7000;
function writeLargeTree(path: string): void {
  for (let i = 0; i < LARGE; i++) {
    const inner = join(path, `${i % 100}`, `${i}`.padStart(200, "n"));
    mkdirSync(inner, { recursive: true });
    symlinkSync(`${i}`.padEnd(300, "t"), join(inner, "link"));
  }
}

describe("the NAR of a tree", () => {
  it("is rendered, listed and opened by one request for its directories, however many", async () => {
    writeLargeTree(join(folder, "large"));
    // Hashed in the order of the file system, without reading any directory.
    const { node, narSha256, narSize } = await importPath(join(folder, "large"), services);
    asked.length = 0;

    const hash = createHash("sha256");
    for await (const data of renderNar(node, services)) hash.update(data);
    expect(hash.digest().equals(narSha256)).toBe(true);
    expect(asked.splice(0)).toEqual(["getRecursive"]);

    await using nar = await SeekableNar.open(node, services);
    expect(BigInt(nar.size)).toBe(narSize);
    const again = createHash("sha256");
    for (let offset = 0; offset < nar.size; offset += 1_000_000) {
      for await (const data of nar.read({ offset, length: 1_000_000 })) again.update(data);
    }
    expect(again.digest().equals(narSha256)).toBe(true);
    expect(asked.splice(0)).toEqual(["getRecursive"]);

    const { root } = await listNar(node, directoryService);
    if (root.type !== "directory") throw new Error("the tree is a folder");
    const inner = Object.values(root.entries).map((one) =>
      one.type === "directory" ? Object.keys(one.entries).length : 0,
    );
    expect(inner.reduce((sum, count) => sum + count)).toBe(LARGE);
    expect(asked.splice(0)).toEqual(["getRecursive"]);
  });
});

/** A chain of directories, the root first. */
function chain(length: number): { node: DirectoryNode; directories: Directory[] } {
  const directories = [Directory.from([])];
  for (let i = 1; i < length; i++) {
    const child = directories[0]!;
    const node: DirectoryNode = {
      type: "directory",
      digest: encodeDirectory(child).digest,
      size: child.size,
    };
    directories.unshift(Directory.from([{ name: pathComponent("d"), node }]));
  }
  const [root] = directories;
  const { digest } = encodeDirectory(root!);
  return { node: { type: "directory", digest, size: root!.size }, directories };
}

describe("TreeReader", () => {
  const { node, directories } = chain(5);
  const digests = directories.map((directory) => encodeDirectory(directory).digest);

  /** Notes how far the stream is read, and whether it was left. */
  function watched(): { service: MemoryDirectoryService; read: () => number; left: () => boolean } {
    let read = 0;
    let left = false;
    const service = Object.assign(new MemoryDirectoryService(), {
      async *getRecursive(_: B3Digest) {
        try {
          for (const directory of directories) {
            read += 1;
            yield directory;
          }
        } finally {
          left = true;
        }
      },
    });
    return { service, read: () => read, left: () => left };
  }

  it("reads as far as it takes, and gives what came before again", async () => {
    const { service, read, left } = watched();
    {
      await using tree = new TreeReader(node, service);
      expect(read()).toBe(0);
      expect(await tree.get(digests[2]!)).toEqual(directories[2]);
      expect(read()).toBe(3);
      expect(await tree.get(digests[0]!)).toEqual(directories[0]);
      expect(await tree.get(digests[2]!)).toEqual(directories[2]);
      expect(read()).toBe(3);
      expect(left()).toBe(false);
    }
    expect(left()).toBe(true);
  });

  it("has nothing else than what the stream gives", async () => {
    const { service, read } = watched();
    await using tree = new TreeReader(node, service);
    const { digest } = encodeDirectory(
      Directory.from([
        { name: pathComponent("a"), node: { type: "symlink", target: symlinkTarget("b") } },
      ]),
    );
    expect(await tree.get(digest)).toBeUndefined();
    expect(read()).toBe(5);
    expect(await tree.get(digests[4]!)).toEqual(directories[4]);
  });
});

describe("SpillingMap", () => {
  it("gives every value back, in memory or not, the first of each digest", async () => {
    let encoded = 0;
    const codec = {
      encode(text: string) {
        encoded += 1;
        return Buffer.from(text);
      },
      decode: (bytes: Uint8Array) => Buffer.from(bytes).toString(),
    };
    using map = new SpillingMap<string>(codec, 2000);
    const digests = chain(30).directories.map((directory) => encodeDirectory(directory).digest);
    for (const [i, digest] of digests.entries()) await map.add(digest, `value ${i}`);
    for (const digest of digests) await map.add(digest, "another");
    expect(digests.map((digest) => map.get(digest))).toEqual(digests.map((_, i) => `value ${i}`));
    expect(encoded).toBeGreaterThan(30);
  });
});
