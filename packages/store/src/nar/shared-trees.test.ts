import {
  Directory,
  type DirectoryNode,
  type DirectoryService,
  encodeDirectory,
  MemoryBlobService,
  MemoryDirectoryService,
  pathComponent,
} from "@tvix/castore";
import { beforeEach, describe, expect, it } from "vitest";
import { renderNar } from "./renderer.ts";
import { SharedTrees } from "./shared-trees.ts";

const DEPTH = 50;

let directories: MemoryDirectoryService;
let root: DirectoryNode;
/** How often the tree was asked for, and whether each stream of it was ended. */
let streams: { ended: boolean }[];
/** How many directories are handed out; others are waited for until the stream is cancelled. */
let available: number;
/** What the next stream fails with, in place of its second directory. */
let failure: Error | undefined;

beforeEach(async () => {
  directories = new MemoryDirectoryService();
  streams = [];
  available = Number.POSITIVE_INFINITY;
  failure = undefined;
  const putter = directories.openPutter();
  let directory = Directory.from([]);
  for (let i = 0; i < DEPTH; i++) {
    await putter.put(directory);
    const { digest } = encodeDirectory(directory);
    const node = { type: "directory", digest, size: directory.size } as const;
    directory = Directory.from([{ name: pathComponent(`level-${i}`), node }]);
  }
  await putter.put(directory);
  root = { type: "directory", digest: await putter.close(), size: directory.size };
});

const getRecursive: DirectoryService["getRecursive"] = async function* (digest, options) {
  const stream = { ended: false };
  streams.push(stream);
  const broken = failure;
  failure = undefined;
  let count = 0;
  try {
    for await (const directory of directories.getRecursive(digest, options)) {
      if (count === 1 && broken) throw broken;
      if (count++ >= available) {
        await new Promise((_, reject) => {
          options?.signal?.addEventListener("abort", () => reject(options.signal?.reason));
        });
      }
      yield directory;
    }
  } finally {
    stream.ended = true;
  }
};

function sourcesOf(trees: SharedTrees) {
  return { blobService: new MemoryBlobService(), directoryService: directories, trees };
}

async function nar(sources: Parameters<typeof renderNar>[1], signal?: AbortSignal) {
  const parts: Buffer[] = [];
  for await (const part of renderNar(root, sources, { signal })) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

describe("trees that are shared", () => {
  it("are read once, however many render them at the same time", async () => {
    const expected = await nar({
      blobService: new MemoryBlobService(),
      directoryService: directories,
    });
    const sources = sourcesOf(new SharedTrees({ getRecursive }));
    const found = await Promise.all(Array.from({ length: 8 }, () => nar(sources)));
    for (const bytes of found) expect(bytes.equals(expected)).toBe(true);
    expect(streams).toEqual([{ ended: true }]);
    await nar(sources);
    expect(streams).toHaveLength(2); // nothing is kept that nobody reads
  });

  it("are read on when one reader leaves, and no further when the last one does", async () => {
    available = 10;
    const sources = sourcesOf(new SharedTrees({ getRecursive }));
    const leaving = [new AbortController(), new AbortController()];
    const readers = leaving.map(({ signal }) => nar(sources, signal));
    const settled = readers.map((reader) => reader.catch((error) => error));
    leaving[0]!.abort(new Error("left"));
    expect(await settled[0]).toEqual(new Error("left"));
    expect(streams).toEqual([{ ended: false }]);
    leaving[1]!.abort(new Error("left as well"));
    expect(await settled[1]).toEqual(new Error("left as well"));
    expect(streams).toEqual([{ ended: true }]);
  });

  it("are read again by whoever comes after a failure, of which all others are told", async () => {
    failure = new Error("broken");
    const sources = sourcesOf(new SharedTrees({ getRecursive }));
    const readers = Array.from({ length: 3 }, () => nar(sources).catch((error) => error));
    expect(await Promise.all(readers)).toEqual(Array(3).fill(new Error("broken")));
    expect((await nar(sources)).length).toBeGreaterThan(0);
    expect(streams).toHaveLength(2);
  });
});
