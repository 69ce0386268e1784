import { expect, it } from "vitest";
import { MemoryDirectoryService } from "../directoryservice/memory.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import { type Node, symlinkTarget } from "../model/node.ts";
import { pathComponent } from "../model/path.ts";
import { type IngestEntry, ingestEntries } from "./ingest-entries.ts";

const LINK: Node = { type: "symlink", target: symlinkTarget("target") };

async function* entries(...list: [path: string, node: IngestEntry["node"]][]) {
  for (const [path, node] of list) {
    yield { path: path === "" ? [] : path.split("/").map((name) => pathComponent(name)), node };
  }
}

const ingest = (...list: [path: string, node: IngestEntry["node"]][]) =>
  ingestEntries(new MemoryDirectoryService(), entries(...list));

it("takes a file or symlink as root without storing a directory", async () => {
  expect(await ingest(["", LINK])).toEqual(LINK);
});

it("gives the same root whatever the order of siblings", async () => {
  const one = await ingest(["a/x", LINK], ["a", "directory"], ["b", LINK], ["", "directory"]);
  const other = await ingest(["b", LINK], ["a/x", LINK], ["a", "directory"], ["", "directory"]);
  expect(one).toEqual(other);
  expect(one).toMatchObject({ type: "directory", size: 6n });
});

it("waits for promised nodes", async () => {
  const file: Node = {
    type: "file",
    digest: blake3Digest(new Uint8Array(3)),
    size: 3n,
    executable: false,
  };
  const late = new Promise<Node>((resolve) => setImmediate(() => resolve(file)));
  const root = await ingest(["file", late], ["", "directory"]);
  expect(root).toEqual(await ingest(["file", file], ["", "directory"]));
});

it("rejects with what a promised node rejects with, and stores nothing", async () => {
  const directoryService = new MemoryDirectoryService();
  const failure = new Error("disk full");
  const failing = Promise.reject(failure);
  const source = entries(["a/x", LINK], ["a", "directory"], ["b", failing], ["", "directory"]);
  await expect(ingestEntries(directoryService, source)).rejects.toBe(failure);
  const a = await ingest(["x", LINK], ["", "directory"]);
  if (a.type !== "directory") throw new Error("expected a directory");
  expect(await directoryService.get(a.digest)).toBeUndefined();
});

it.each([
  ["nothing at all", [], "expected a root"],
  [
    "an entry after the root",
    [
      ["", LINK],
      ["a", LINK],
    ],
    "has to be the last",
  ],
  [
    "a path twice",
    [
      ["a", LINK],
      ["a", LINK],
      ["", "directory"],
    ],
    "twice",
  ],
  [
    "a folder that comes before its entries",
    [
      ["a", "directory"],
      ["a/x", LINK],
      ["", "directory"],
    ],
    "twice|expected an entry",
  ],
  [
    "entries of a folder that never comes",
    [
      ["a/x", LINK],
      ["", "directory"],
    ],
    '"a" contains entries',
  ],
  [
    "entries below a file",
    [
      ["a/x", LINK],
      ["a", LINK],
      ["", "directory"],
    ],
    '"a" contains entries',
  ],
] as [string, [string, IngestEntry["node"]][], string][])("refuses %s", async (_, list, reason) => {
  await expect(ingest(...list)).rejects.toMatchObject({
    code: "invalid_argument",
    message: expect.stringMatching(reason),
  });
});
