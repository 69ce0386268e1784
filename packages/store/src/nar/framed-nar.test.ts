import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import {
  collectBytes,
  Directory,
  decompress,
  encodeDirectory,
  MemoryBlobService,
  MemoryDirectoryService,
  type Node,
  PackBlobService,
  pathComponent,
  putBlob,
  symlinkTarget,
} from "@tvix/castore";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { isFrameSource, measureFramedNar, readFramedNar } from "./framed-nar.ts";
import type { NarSources } from "./renderer.ts";
import { renderNar } from "./renderer.ts";

/** Bytes that cannot be compressed. */
function noise(length: number, seed: string): Buffer {
  const parts = Array.from({ length: Math.ceil(length / 32) }, (_, i) =>
    createHash("sha256").update(`${seed} ${i}`).digest(),
  );
  return Buffer.concat(parts).subarray(0, length);
}

interface Tree {
  readonly [name: string]: Uint8Array | string | Tree;
}

let folder: string;
let sources: { blobService: PackBlobService; directoryService: MemoryDirectoryService };
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "framed-nar-"));
  sources = {
    blobService: await PackBlobService.open({ path: folder }),
    directoryService: new MemoryDirectoryService(),
  };
});
afterAll(async () => {
  await sources.blobService[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

/** Stores a file, a symlink (a string), or a folder. */
async function store(tree: Tree[string]): Promise<Node> {
  const putter = sources.directoryService.openPutter();
  const put = async (value: Tree[string]): Promise<Node> => {
    if (typeof value === "string") return { type: "symlink", target: symlinkTarget(value) };
    if (value instanceof Uint8Array) {
      const digest = await putBlob(sources.blobService, value);
      return { type: "file", digest, size: BigInt(value.length), executable: value.length > 9 };
    }
    const entries = [];
    for (const [name, inner] of Object.entries(value)) {
      entries.push({ name: pathComponent(name), node: await put(inner) });
    }
    const directory = Directory.from(entries);
    await putter.put(directory);
    return { type: "directory", digest: encodeDirectory(directory).digest, size: directory.size };
  };
  const node = await put(tree);
  if (node.type === "directory") await putter.close();
  return node;
}

const fileOf = (root: Node, range?: { offset?: number; length?: number }) => {
  const pieces = readFramedNar(root, sources, range);
  return collectBytes(
    (async function* () {
      for await (const piece of pieces) yield Buffer.from(piece); // only lent
    })(),
  );
};

async function narOf(root: Node): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of renderNar(root, sources)) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

const manyFiles = () =>
  Object.fromEntries(
    Array.from({ length: 1300 }, (_, i) => [`file ${i}`, Buffer.from(`contents ${i % 700}\n`)]),
  );

const TREES: readonly (readonly [what: string, tree: () => Tree[string]])[] = [
  ["a symlink", () => "target"],
  ["an empty file", () => Buffer.alloc(0)],
  ["a file of one chunk", () => Buffer.from("contents")],
  ["a file of many chunks", () => Buffer.alloc(3_000_000, "many chunks ")],
  ["an empty folder", () => ({})],
  ["folders without contents", () => ({ a: { b: {}, c: Buffer.alloc(0) }, d: "e" })],
  ["incompressible files", () => ({ large: noise(900_000, "large"), small: noise(99, "small") })],
  ["many small files", () => ({ again: manyFiles(), files: manyFiles() })],
  [
    "everything",
    () => ({
      bin: { program: Buffer.alloc(700_000, "program ") },
      lib: { "a.so": noise(300_000, "a"), "b.so": "a.so", empty: Buffer.alloc(0) },
      more: { bin: { program: Buffer.alloc(700_000, "program ") } },
      readme: Buffer.from("read me"),
    }),
  ],
];

describe("a NAR of frames", () => {
  it.each(TREES)(
    "of %s is what the NAR decompresses to, of the length that was measured",
    async (_, tree) => {
      const root = await store(tree());
      const nar = await narOf(root);
      const measured = await measureFramedNar(root, sources);
      const file = await fileOf(root);
      expect([measured.narSize, measured.fileSize]).toEqual([nar.length, file.length]);
      const contents = await collectBytes(decompress(Readable.from([file]), "zstd"));
      expect(nar.equals(contents)).toBe(true);
    },
  );

  it("is read in part, from any byte to any other", async () => {
    const root = await store(TREES.at(-1)![1]());
    const file = await fileOf(root);
    const { length } = file;
    const borders = [0, 1, 5000, Math.floor(length / 2), length - 20, length];
    for (const start of borders) {
      for (const end of borders.filter((end) => end >= start)) {
        const part = await fileOf(root, { offset: start, length: end - start });
        expect(Buffer.from(part).equals(file.subarray(start, end))).toBe(true);
      }
    }
    expect(await fileOf(root, { offset: length + 1, length: 1 })).toHaveLength(0);
  });

  it("reads no frame before a part, and none behind it", async () => {
    const root = await store(Buffer.alloc(9_000_000, "some text "));
    const { fileSize } = await measureFramedNar(root, sources);
    using read = vi.spyOn(sources.blobService, "verifiedFrames");
    await fileOf(root, { offset: fileSize - 20, length: 10 });
    await fileOf(root, { offset: 3, length: 10 });
    expect(read.mock.calls.map(([chunks]) => chunks.length)).toEqual([0, 0]);
    await fileOf(root, { offset: Math.floor(fileSize / 2), length: 1 });
    expect(read.mock.lastCall![0].length).toBe(1);
  });

  it("has a tag that tells different contents apart", async () => {
    const roots = await Promise.all(["a", "b"].map((text) => store(Buffer.from(text))));
    const [a, b, again] = await Promise.all(
      [...roots, roots[0]!].map((root) => measureFramedNar(root, sources)),
    );
    expect(a!.tag).not.toBe(b!.tag);
    expect(again!.tag).toBe(a!.tag);
  });

  it("is refused where a blob is missing or of another length, or a chunk has gone", async () => {
    const file = Buffer.from("in another store");
    const digest = await putBlob(new MemoryBlobService(), file);
    const missing: Node = { type: "file", digest, size: BigInt(file.length), executable: false };
    await expect(measureFramedNar(missing, sources)).rejects.toMatchObject({ code: "not_found" });
    const stored = await store(Buffer.from("six by"));
    const longer = { ...stored, size: 7n } as Node;
    await expect(measureFramedNar(longer, sources)).rejects.toMatchObject({ code: "data_loss" });
  });

  it("is broken off where a frame has another length than was measured", async () => {
    const root = await store(Buffer.alloc(100_000, "stored anew "));
    using _ = vi
      .spyOn(sources.blobService, "verifiedFrames")
      .mockImplementation(async function* () {
        yield [new Uint8Array(5)];
      });
    await expect(fileOf(root)).rejects.toMatchObject({ code: "aborted" });
  });

  it("needs a service that stores frames", () => {
    const others: NarSources["blobService"] = new MemoryBlobService();
    expect([isFrameSource(sources.blobService), isFrameSource(others)]).toEqual([true, false]);
  });
});
