import {
  blake3Digest,
  Directory,
  type DirectoryEntry,
  encodeDirectory,
  MemoryBlobService,
  MemoryDirectoryService,
  type Node,
  pathComponent,
  putBlob,
  symlinkTarget,
} from "@tvix/castore";
import { beforeEach, describe, expect, it } from "vitest";
import { renderNar } from "./renderer.ts";
import { type NarRange, SeekableNar } from "./seekable.ts";

/** Notes which blobs were read. */
class WatchedBlobService extends MemoryBlobService {
  readonly asked = new Set<string>();

  override async read(...args: Parameters<MemoryBlobService["read"]>) {
    this.asked.add(args[0].hex);
    return await super.read(...args);
  }

  override async readMany(...args: Parameters<MemoryBlobService["readMany"]>) {
    for (const { digest } of args[0]) this.asked.add(digest.hex);
    return await super.readMany(...args);
  }
}

let sources: { blobService: WatchedBlobService; directoryService: MemoryDirectoryService };
beforeEach(() => {
  sources = {
    blobService: new WatchedBlobService(),
    directoryService: new MemoryDirectoryService(),
  };
});

async function file(contents: Uint8Array, executable = false): Promise<Node> {
  const digest = await putBlob(sources.blobService, contents);
  return { type: "file", digest, size: BigInt(contents.length), executable };
}

/** Stores directories, each made of the ones before it. The last is the root. */
async function putTree(
  make: (add: (entries: Readonly<Record<string, Node>>) => Promise<Node>) => Promise<Node>,
): Promise<Node> {
  await using putter = sources.directoryService.openPutter();
  const root = await make(async (entries) => {
    const list = Object.entries(entries).map(
      ([name, node]): DirectoryEntry => ({ name: pathComponent(name), node }),
    );
    const directory = Directory.from(list);
    await putter.put(directory);
    return { type: "directory", digest: encodeDirectory(directory).digest, size: directory.size };
  });
  await putter.close();
  return root;
}

async function all(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(stream, Buffer.from)); // each is only lent
}

/** A tree with everything in it, a directory that is in two places included. */
async function sampleTree(large: number): Promise<Node> {
  const files = {
    large: await file(Buffer.alloc(large, "large")),
    none: await file(Buffer.alloc(0)),
    run: await file(Buffer.from("#!/bin/sh"), true),
    text: await file(Buffer.from("text")),
  };
  const link: Node = { type: "symlink", target: symlinkTarget("a/target/of some length") };
  return await putTree(async (add) => {
    const empty = await add({});
    const inner = await add({ empty, link, text: files.text });
    const twice = await add({ a: inner, b: inner, "c.large": files.large, d: files.none });
    return await add({ bin: files.run, one: twice, two: twice, z: link });
  });
}

const read = async (nar: SeekableNar, range?: NarRange) => await all(nar.read(range));

describe("SeekableNar", () => {
  it("gives every part of a NAR", async () => {
    const root = await sampleTree(100);
    const whole = await all(renderNar(root, sources));
    await using nar = await SeekableNar.open(root, sources);
    expect(nar.size).toBe(whole.length);
    expect((await read(nar)).equals(whole)).toBe(true);
    for (let offset = 0; offset <= whole.length + 1; offset++) {
      for (const length of [0, 1, 7 + (offset % 60), whole.length]) {
        const found = await read(nar, { offset, length });
        if (!found.equals(whole.subarray(offset, offset + length))) {
          expect.fail(`wrong bytes at ${offset}, ${length} of them`);
        }
      }
    }
  });

  it("gives parts of large files, from any byte in them", async () => {
    const root = await sampleTree(3_000_001);
    const whole = await all(renderNar(root, sources));
    await using nar = await SeekableNar.open(root, sources);
    const first = whole.indexOf("largelarge");
    const edges = [first, first + 1, first + 700_000, first + 3_000_000, first + 3_000_001];
    for (const offset of edges.flatMap((edge) => [edge - 8, edge - 1, edge, edge + 1, edge + 8])) {
      for (const length of [1, 100, 300_000, 3_000_500]) {
        const found = await read(nar, { offset, length });
        expect(found.equals(whole.subarray(offset, offset + length))).toBe(true);
      }
    }
  });

  it.each<[string, () => Promise<Node>]>([
    ["file", () => file(Buffer.from("contents"))],
    ["executable", () => file(Buffer.alloc(600_000), true)],
    ["symlink", async () => ({ type: "symlink", target: symlinkTarget("t") })],
    ["empty directory", () => putTree((add) => add({}))],
  ])("gives every part where the root is a %s", async (_, make) => {
    const root = await make();
    const whole = await all(renderNar(root, sources));
    await using nar = await SeekableNar.open(root, sources);
    expect(nar.size).toBe(whole.length);
    for (let offset = 0; offset < Math.min(whole.length, 200); offset++) {
      for (const length of [1, 50, whole.length]) {
        const found = await read(nar, { offset, length });
        expect(found.equals(whole.subarray(offset, offset + length))).toBe(true);
      }
    }
  });

  it("reads no file that is not in the part", async () => {
    const sizes = Array.from({ length: 2000 }, (_, i) => (i % 50 === 0 ? 300_000 : 10));
    const files = await Promise.all(sizes.map((size, i) => file(Buffer.alloc(size, `${i} `))));
    const root = await putTree(async (add) => {
      const name = (i: number) => String(i).padStart(4, "0");
      return await add(Object.fromEntries(files.map((node, i) => [name(i), node])));
    });
    await using nar = await SeekableNar.open(root, sources);
    const whole = await all(renderNar(root, sources));
    for (const i of [0, 777, 1000, 1999]) {
      const offset = whole.indexOf(Buffer.alloc(sizes[i]!, `${i} `));
      sources.blobService.asked.clear();
      const found = await read(nar, { offset, length: 10 });
      expect(found.equals(whole.subarray(offset, offset + 10))).toBe(true);
      expect([...sources.blobService.asked]).toEqual([digestOf(files[i]!)]);
    }
  });

  it("knows the size of a NAR that nobody could render", async () => {
    const digest = blake3Digest(Buffer.from("never stored"));
    const huge: Node = { type: "file", digest, size: 1n << 45n, executable: false };
    const root = await putTree(async (add) => {
      let node = await add({ huge });
      for (let i = 0; i < 7; i++) node = await add({ a: node, b: node });
      return node;
    });
    await using nar = await SeekableNar.open(root, sources);
    expect(nar.size).toBeGreaterThan(2 ** 52);
    expect((await read(nar, { length: 500 })).subarray(8, 21).toString()).toBe("nix-archive-1");
    const end = await read(nar, { offset: nar.size - 32 });
    expect(end.toString("latin1").match(/\)/g)).toHaveLength(2);

    const tooLarge = await putTree(async (add) => {
      let node = await add({ huge });
      for (let i = 0; i < 20; i++) node = await add({ a: node, b: node });
      return node;
    });
    const opened = SeekableNar.open(tooLarge, sources);
    await expect(opened).rejects.toMatchObject({ code: "invalid_argument" });
  });

  it("tells what is missing, and refuses what is no range", async () => {
    const digest = blake3Digest(Buffer.from("never stored"));
    const missing: Node = { type: "directory", digest, size: 1n };
    const none = SeekableNar.open(missing, sources);
    await expect(none).rejects.toMatchObject({ code: "not_found" });
    const root: Node = { type: "file", digest, size: 1_000_000n, executable: false };
    await using nar = await SeekableNar.open(root, sources);
    const code = "not_found";
    await expect(read(nar, { offset: 1000, length: 5 })).rejects.toMatchObject({ code });
    for (const range of [{ offset: -1 }, { offset: 0.5 }, { length: -1 }, { length: Number.NaN }]) {
      expect(() => nar.read(range)).toThrow(/expected (offset|length) to be/);
    }
    const shorter = await putBlob(sources.blobService, Buffer.alloc(500_000));
    const wrong: Node = { type: "file", digest: shorter, size: 1_000_000n, executable: false };
    await using other = await SeekableNar.open(wrong, sources);
    const past = read(other, { offset: 400_000, length: 200_000 });
    await expect(past).rejects.toMatchObject({ code: "data_loss" });
  });

  it("is read by several at the same time", async () => {
    const root = await sampleTree(100);
    const whole = await all(renderNar(root, sources));
    await using nar = await SeekableNar.open(root, sources);
    const offsets = Array.from({ length: 50 }, (_, i) => i * 20);
    const found = await Promise.all(offsets.map((offset) => read(nar, { offset, length: 300 })));
    for (const [i, offset] of offsets.entries()) {
      expect(found[i]!.equals(whole.subarray(offset, offset + 300))).toBe(true);
    }
  });

  it("stops when it is cancelled", async () => {
    await using nar = await SeekableNar.open(await sampleTree(3_000_001), sources);
    const reason = new Error("enough");
    const signal = AbortSignal.abort(reason);
    await expect(read(nar, { signal })).rejects.toBe(reason);
    const controller = new AbortController();
    const reading = async () => {
      for await (const _ of nar.read({ offset: 500, signal: controller.signal })) {
        controller.abort(reason);
      }
    };
    await expect(reading()).rejects.toBe(reason);
  });
});

function digestOf(node: Node): string {
  return node.type === "symlink" ? "" : node.digest.hex;
}
