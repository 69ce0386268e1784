import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  Directory,
  encodeDirectory,
  MemoryBlobService,
  MemoryDirectoryService,
  type Node,
  PackBlobService,
  pathComponent,
  putBlob,
} from "@tvix/castore";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { renderNar } from "./renderer.ts";
import { SeekableNar } from "./seekable.ts";

/** Bytes that cannot be compressed. */
function noise(length: number, seed: string): Buffer {
  const parts = Array.from({ length: Math.ceil(length / 32) }, (_, i) =>
    createHash("sha256").update(`${seed} ${i}`).digest(),
  );
  return Buffer.concat(parts).subarray(0, length);
}

const SIZES = [
  0,
  1,
  300,
  16_384,
  65_536,
  200_000, // of several chunks
  262_144,
  262_145,
  2_000_000,
  ...Array.from({ length: 300 }, (_, i) => i * 11),
  700_000,
];
const FILES = SIZES.map((size, i) =>
  i % 2 === 0 ? noise(size, `${i}`) : Buffer.alloc(size, `file ${i} `),
);

let folder: string;
let packs: PackBlobService;
const memory = new MemoryBlobService();
const directoryService = new MemoryDirectoryService();
let root: Node;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "renderer-packs-"));
  packs = await PackBlobService.open({ path: folder, onCorrupt: () => undefined });
  const entries = [];
  for (const [i, contents] of FILES.entries()) {
    const digest = await putBlob(packs, contents);
    await putBlob(memory, contents);
    const node = { type: "file", digest, size: BigInt(contents.length), executable: i % 3 === 0 };
    entries.push({ name: pathComponent(`${i}`.padStart(4, "0")), node: node as Node });
  }
  const directory = Directory.from(entries);
  await using putter = directoryService.openPutter();
  await putter.put(directory);
  await putter.close();
  root = { type: "directory", digest: encodeDirectory(directory).digest, size: directory.size };
}, 30_000);
afterEach(async () => {
  await packs[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

const copy = (bytes: Uint8Array) => Buffer.from(bytes);
const render = async (blobService: PackBlobService | MemoryBlobService) =>
  Buffer.concat(await Array.fromAsync(renderNar(root, { blobService, directoryService }), copy));

describe("a NAR of blobs in packs", () => {
  it("is that of the same blobs in memory, whole and in part", async () => {
    const expected = await render(memory);
    expect((await render(packs)).equals(expected)).toBe(true);
    const sources = { blobService: packs, directoryService };
    await using nar = await SeekableNar.open(root, sources);
    const contents = expected.indexOf(FILES[8]!);
    for (const offset of [0, 30, 70_000, contents + 1, contents + 900_000, expected.length - 9]) {
      for (const length of [1, 100, 600_000, 4_000_000]) {
        const part = Buffer.concat(await Array.fromAsync(nar.read({ offset, length }), copy));
        expect(part.equals(expected.subarray(offset, offset + length))).toBe(true);
      }
    }
  });

  it("has no long chunk read ahead where little may be read ahead", async () => {
    const contents = Buffer.alloc(4_000_000, "x"); // cut into the longest chunks that there are
    const digest = await putBlob(packs, contents);
    const size = BigInt(contents.length);
    const file: Node = { type: "file", digest, size, executable: false };
    const sources = { blobService: packs, directoryService };
    using readInto = vi.spyOn(packs, "readManyInto");
    let received = 0;
    const ahead: number[] = [];
    for await (const piece of renderNar(file, sources, { readAhead: () => 256 * 1024 })) {
      received += piece.length;
      const asked = readInto.mock.calls.reduce((sum, [_, blobs]) => sum + blobs.size, 0);
      ahead.push(asked - received);
    }
    expect(ahead.length).toBeGreaterThan(5);
    expect(Math.max(...ahead.slice(1))).toBeLessThanOrEqual(0); // before the first chunk is the short begin of the NAR
  });

  it("comes several times at once, each as it is alone", async () => {
    const expected = await render(memory);
    const all = await Promise.all(Array.from({ length: 5 }, () => render(packs)));
    for (const nar of all) expect(nar.equals(expected)).toBe(true);
  });

  it.each([
    ["small", 2],
    ["cut into chunks", 6],
    ["large", 8],
  ])(
    "ends with an error before any wrong byte where a file that is %s was damaged",
    async (_, i) => {
      const expected = await render(memory);
      const [name] = await readdir(join(folder, "packs"));
      const pack = await readFile(join(folder, "packs", name!));
      const contents = FILES[i]!;
      const at = pack.indexOf(contents.subarray(100, 200));
      expect(at).toBeGreaterThan(0);
      pack[at + 50]! ^= 1;
      await writeFile(join(folder, "packs", name!), pack);
      let length = 0;
      const reading = async () => {
        for await (const piece of renderNar(root, { blobService: packs, directoryService })) {
          expect(expected.subarray(length, length + piece.length).equals(piece)).toBe(true);
          length += piece.length;
        }
      };
      await expect(reading()).rejects.toMatchObject({ code: "data_loss" });
      expect(length).toBeLessThanOrEqual(expected.indexOf(contents));
      await putBlob(packs, contents);
      expect((await render(packs)).equals(expected)).toBe(true); // healed
    },
  );
});
