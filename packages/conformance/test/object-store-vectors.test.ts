import { mkdtempSync, readFileSync } from "node:fs";
import { cp, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { zstdDecompressSync } from "node:zlib";
import {
  blake3Digest,
  collectBytes,
  type Directory,
  encodeDirectory,
  importPath,
  openBlobService,
  openDirectoryService,
  openObjectStore,
} from "@tvix/castore";
import { listNar, RenderingNarCalculationService, SeekableNar } from "@tvix/store";
import { afterAll, beforeAll, expect, it } from "vitest";
import { chunksOf, type TreeSpec, writeTree } from "../src/index.ts";
import { temporaryFolder } from "./temporary-folder.ts";

/** The objects that tvix wrote for one tree. */
const SAMPLE = fileURLToPath(new URL("../../../vectors/objectstore-sample/", import.meta.url));

const [spec] = JSON.parse(readFileSync(join(SAMPLE, "tree-spec.json"), "utf8")) as [TreeSpec];

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());

const tree = join(folder.path, spec.name);
beforeAll(() => writeTree(spec, tree));

function digestOf(directory: Directory): string {
  return encodeDirectory(directory).digest.hex;
}

async function contentsOf(path: string): Promise<Map<string, string>> {
  await using store = await openObjectStore(`file://${path}`);
  const contents = new Map<string, string>();
  for await (const { key } of store.list("")) {
    if (/^(dirs-inner|lists)\//.test(key)) continue; // ours alone
    const stored = Buffer.from(await collectBytes((await store.get(key))!));
    const bytes = key.startsWith("blobs/") ? stored : zstdDecompressSync(stored);
    contents.set(key, bytes.toString("base64"));
  }
  return contents;
}

it("reads whole what the reference wrote", async () => {
  await cp(SAMPLE, join(folder.path, "sample"), { recursive: true });
  const sample = `objectstore+file://${folder.path}/sample`;
  await using blobService = await openBlobService(`${sample}/blobs.object_store`);
  await using directoryService = await openDirectoryService(`${sample}/directories.object_store`);
  await using blobs = await openBlobService("memory://");
  await using directories = await openDirectoryService("memory://");
  const root = await importPath(tree, { blobService: blobs, directoryService: directories });
  if (root.type !== "directory") throw new Error("the tree is a folder");

  const found = await Array.fromAsync(directoryService.getRecursive(root.digest));
  const expected = await Array.fromAsync(directories.getRecursive(root.digest));
  expect(found.map(digestOf).toSorted()).toEqual(expected.map(digestOf).toSorted());
  const files = found.flatMap(({ entries }) =>
    entries.flatMap(({ node }) => (node.type === "file" ? [node] : [])),
  );
  expect(files.length).toBe(3);
  for (const { digest, size } of files) {
    expect(await blobService.has(digest)).toBe(true);
    const bytes = await collectBytes((await blobService.read(digest))!);
    expect(blake3Digest(bytes).equals(digest)).toBe(true);
    expect(BigInt(bytes.length)).toBe(size);
    const range = { offset: bytes.length >> 1, length: 10 };
    const part = await collectBytes((await blobService.read(digest, range))!);
    expect(Buffer.compare(part, bytes.subarray(range.offset, range.offset + 10))).toBe(0);
    const chunks = (await chunksOf(blobService, digest))!;
    const lengths = chunks.reduce((sum, chunk) => sum + chunk.size, 0);
    expect(lengths).toBe(bytes.length);
  }
});

it("gives the NAR of a tree in a bucket of the reference, which has only the whole trees", async () => {
  const sample = `objectstore+file://${folder.path}/sample`;
  await using blobService = await openBlobService(`${sample}/blobs.object_store`);
  await using directoryService = await openDirectoryService(`${sample}/directories.object_store`);
  await using blobs = await openBlobService("memory://");
  await using directories = await openDirectoryService("memory://");
  const root = await importPath(tree, { blobService: blobs, directoryService: directories });
  const sources = { blobService, directoryService };
  const { narSize, narSha256 } = await new RenderingNarCalculationService(sources).calculateNar(
    root,
  );
  // `nix-store --dump` and `nix-hash --type sha256` of Nix 2.8.
  expect(narSize).toBe(615_808n);
  expect(Buffer.from(narSha256).toString("hex")).toBe(
    "05dd5146831dd2b28edcfeb2e60ca2faa653851925c7ca3e4842e3292eaf311c",
  );
  await using nar = await SeekableNar.open(root, sources);
  expect(nar.size).toBe(615_808);
  const listing = await listNar(root, directoryService);
  expect(listing.root).toMatchObject({
    entries: { bin: { entries: { hello: { executable: true, size: 21 } } } },
  });
});

it("writes what the reference wrote", async () => {
  const ours = mkdtempSync(join(folder.path, "ours-"));
  {
    await using blobService = await openBlobService(`objectstore+file://${ours}/blobs`);
    await using directoryService = await openDirectoryService(`objectstore+file://${ours}/dirs`);
    await importPath(tree, { blobService, directoryService });
  }
  const theirs = join(folder.path, "sample");
  expect(await contentsOf(join(ours, "blobs"))).toEqual(
    await contentsOf(join(theirs, "blobs.object_store")),
  );
  expect(await contentsOf(join(ours, "dirs"))).toEqual(
    await contentsOf(join(theirs, "directories.object_store")),
  );
});

it("finds the directories inside a tree by their own digests", async () => {
  await using directoryService = await openDirectoryService(
    `objectstore+file://${mkdtempSync(join(folder.path, "inner-"))}`,
  );
  await using blobService = await openBlobService("memory://");
  const root = await importPath(tree, { blobService, directoryService });
  if (root.type !== "directory") throw new Error("the tree is a folder");
  const all = await Array.fromAsync(directoryService.getRecursive(root.digest));
  const inner = all.flatMap(({ entries }) =>
    entries.flatMap(({ node }) => (node.type === "directory" ? [node.digest] : [])),
  );
  expect(inner.length).toBe(3);
  for (const digest of inner) {
    const [first] = await Array.fromAsync(directoryService.getRecursive(digest));
    expect(digestOf((await directoryService.get(digest))!)).toBe(digest.hex);
    expect(digestOf(first!)).toBe(digest.hex);
  }
});

it("leaves a store alone that is only read", async () => {
  const path = join(folder.path, "sample", "blobs.object_store");
  await expect(readFile(join(path, "~uploads"))).rejects.toThrow("ENOENT");
});
