import {
  collectBytes,
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
import { listNar, type NarListingNode } from "./listing.ts";
import { renderNar } from "./renderer.ts";

const sources = {
  blobService: new MemoryBlobService(),
  directoryService: new MemoryDirectoryService(),
};

async function file(contents: string, executable = false): Promise<Node> {
  const digest = await putBlob(sources.blobService, Buffer.from(contents));
  return { type: "file", digest, size: BigInt(contents.length), executable };
}

const entry = (name: string | Uint8Array, node: Node): DirectoryEntry => ({
  name: pathComponent(name),
  node,
});

function nodeOf(directory: Directory): Node {
  const { digest } = encodeDirectory(directory);
  return { type: "directory", digest, size: directory.size };
}

async function store(...directories: Directory[]): Promise<Node> {
  await using putter = sources.directoryService.openPutter();
  for (const directory of directories) await putter.put(directory);
  await putter.close();
  return nodeOf(directories.at(-1)!);
}

describe("listNar", () => {
  let root: Node;
  beforeEach(async () => {
    const empty = Directory.from([]);
    const inner = Directory.from([
      entry("run", await file("#!/bin/sh\n", true)),
      entry("void", nodeOf(empty)),
      entry("z", await file("zzz")),
    ]);
    root = await store(
      empty,
      inner,
      Directory.from([
        entry("a", await file("a".repeat(1001))),
        entry("é", nodeOf(inner)),
        entry("empty", await file("")),
        entry("link", { type: "symlink", target: symlinkTarget("é/run") }),
        entry("zz", await file("the last")),
      ]),
    );
  });

  it("says what is in a NAR, and where", async () => {
    const nar = Buffer.from(await collectBytes(renderNar(root, sources)));
    const listing = await listNar(root, sources.directoryService);
    expect(listing.version).toBe(1);
    const found: Record<string, string> = {};
    const visit = (node: NarListingNode, path: string) => {
      if (node.type === "directory") {
        for (const [name, child] of Object.entries(node.entries)) visit(child, `${path}/${name}`);
      } else if (node.type === "regular") {
        found[path] = nar.toString("utf8", node.narOffset, node.narOffset + node.size);
      }
    };
    visit(listing.root, "");
    expect(found).toEqual({
      "/a": "a".repeat(1001),
      "/empty": "",
      "/zz": "the last",
      "/é/run": "#!/bin/sh\n",
      "/é/z": "zzz",
    });
  });

  it("is the JSON of Nix", async () => {
    const { root: listed } = JSON.parse(
      JSON.stringify(await listNar(root, sources.directoryService)),
    );
    expect(listed.entries.link).toEqual({ type: "symlink", target: "é/run" });
    expect(listed.entries.é.entries.void).toEqual({ type: "directory", entries: {} });
    const { narOffset, ...run } = listed.entries.é.entries.run;
    expect(run).toEqual({ type: "regular", size: 10, executable: true });
    expect(Object.keys(listed.entries.a)).not.toContain("executable");
    expect(narOffset % 8).toBe(0);
  });

  it("lists a root that is a file, or a symlink", async () => {
    const contents = await file("x");
    const listing = await listNar(contents, sources.directoryService);
    expect(listing.root).toEqual({ type: "regular", size: 1, narOffset: 96 });
    const link: Node = { type: "symlink", target: symlinkTarget("t") };
    expect((await listNar(link, sources.directoryService)).root).toEqual({
      type: "symlink",
      target: "t",
    });
  });

  it("refuses names that JSON cannot have, and directories that are missing", async () => {
    const odd = await store(Directory.from([entry(Uint8Array.of(0xff), await file(""))]));
    await expect(listNar(odd, sources.directoryService)).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining('"\\xff"'),
    });
    const missing = nodeOf(Directory.from([entry("nowhere", await file("?"))]));
    await expect(listNar(missing, sources.directoryService)).rejects.toMatchObject({
      code: "not_found",
    });
  });
});
