import { lstatSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  blake3Digest,
  Directory,
  encodeDirectory,
  importPath,
  MemoryBlobService,
  MemoryDirectoryService,
  type Node,
  pathComponent,
} from "@tvix/castore";
import { readTreeSpecs, seededBytes, writeTree } from "@tvix/conformance";
import { type RestoreOptions, restoreTree } from "@tvix/store";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { temporaryFolder } from "./temporary-folder.ts";

const services = {
  blobService: new MemoryBlobService(),
  directoryService: new MemoryDirectoryService(),
};
/** A tree with files of many sizes. */
let node: Node;
beforeAll(async () => {
  using source = temporaryFolder();
  node = await importSomeTree(join(source.path, "tree"));
});

let folder: ReturnType<typeof temporaryFolder>;
/** Where it is restored to. */
let target: string;
beforeEach(() => {
  folder = temporaryFolder();
  mkdirSync(join(folder.path, "to"));
  target = join(folder.path, "to", "target");
});
afterEach(() => folder[Symbol.dispose]());

const restore = (node: Node, options?: RestoreOptions) =>
  restoreTree(node, target, services, options);

/** What is in the folder of the target. */
const found = () => readdirSync(join(folder.path, "to"));

async function importSomeTree(tree: string): Promise<Node> {
  mkdirSync(join(tree, "a/b/c"), { recursive: true });
  mkdirSync(join(tree, "large"));
  for (let i = 0; i < 600; i++) {
    writeFileSync(join(tree, "a/b/c", `${i}`), seededBytes(`small ${i}`, i * 7));
  }
  for (let i = 0; i < 5; i++) {
    writeFileSync(join(tree, "large", `${i}`), seededBytes(`large ${i}`, 300_000 * i));
  }
  symlinkSync("../outside", join(tree, "a/link"));
  return await importPath(tree, services);
}

/** Stores a folder of one file, whose blob is not stored. */
async function danglingFile(size: number): Promise<Node> {
  const file: Node = {
    type: "file",
    digest: blake3Digest(Buffer.alloc(size, "gone")),
    size: BigInt(size),
    executable: false,
  };
  const inner = Directory.from([{ name: pathComponent("file"), node: file }]);
  const innerNode: Node = {
    type: "directory",
    digest: encodeDirectory(inner).digest,
    size: inner.size,
  };
  const root = Directory.from([{ name: pathComponent("sub"), node: innerNode }]);
  await using putter = services.directoryService.openPutter();
  await putter.put(inner);
  await putter.put(root);
  return { type: "directory", digest: await putter.close(), size: root.size };
}

describe("a restored tree", () => {
  const specs = readTreeSpecs().filter(({ tree }) => tree !== "chunked"); // `node` has large files too
  it.each(specs.map((spec) => [spec.tree, spec] as const))(
    "is what was imported: %s",
    async (_, spec) => {
      const source = join(folder.path, "source");
      await writeTree(spec, source);
      const imported = await importPath(source, services);
      await restore(imported);
      expect(await importPath(target, services)).toEqual(imported);
      expect(found()).toEqual(["target"]);
    },
  );

  it("has the permissions and times of a Nix store", async () => {
    await restore(node);
    expect(await importPath(target, services)).toEqual(node);
    const names = ["", "a", "a/b/c", "a/b/c/7", "a/link", "large", "large/4"];
    const stats = names.map((name) => lstatSync(join(target, name)));
    expect(stats.map(({ mtimeMs }) => mtimeMs)).toEqual(names.map(() => 1000));
    const modes = stats.map(({ mode }, i) => [names[i], (mode & 0o777).toString(8)]);
    expect(modes.filter(([name]) => name !== "a/link")).toEqual([
      ["", "555"],
      ["a", "555"],
      ["a/b/c", "555"],
      ["a/b/c/7", "444"],
      ["large", "555"],
      ["large/4", "444"],
    ]);
  });

  it("tells how far it is", async () => {
    const progress: { entries: number; bytes: number }[] = [];
    await restore(node, { onProgress: (step) => progress.push(step) });
    expect(progress.length).toBe(611);
    const small = Array.from({ length: 600 }, (_, i) => i * 7);
    const bytes = [...small, 300_000 * 10].reduce((sum, size) => sum + size, 0);
    expect(progress.at(-1)).toEqual({ entries: 611, bytes });
  });

  it("may have a name that is not UTF-8", async () => {
    const name = Buffer.concat([Buffer.from(`${folder.path}/to/`), Buffer.of(0x61, 0xff)]);
    await restoreTree(node, name, services);
    expect(lstatSync(name).isDirectory()).toBe(true);
  });

  it.each([
    ["a file", () => writeFileSync(target, "")],
    ["a folder", () => mkdirSync(target)],
    ["a symlink to nowhere", () => symlinkSync("nowhere", target)],
  ])("does not replace %s", async (_, create) => {
    create();
    const before = lstatSync(target);
    await expect(restore(node)).rejects.toMatchObject({
      code: "invalid_argument",
      message: `Cannot restore to "${target}": it exists already`,
    });
    expect(lstatSync(target)).toEqual(before);
    expect(found()).toEqual(["target"]);
  });

  it("does not replace what appears meanwhile", async () => {
    const onProgress = ({ entries }: { entries: number }) => {
      if (entries === 300) writeFileSync(target, "mine");
    };
    await expect(restore(node, { onProgress })).rejects.toThrow("it exists already");
    expect(found()).toEqual(["target"]);
    expect(lstatSync(target).size).toBe(4);
  });

  it("needs a folder to be in", async () => {
    target = join(folder.path, "to/none/target");
    await expect(restore(node)).rejects.toMatchObject({
      code: "not_found",
      message: `Cannot restore to "${target}": the folder "${folder.path}/to/none" does not exist`,
    });
  });

  it.each([
    ["a small blob", 1000],
    ["a large blob", 1_000_000],
  ])("leaves nothing if %s is missing, and says which", async (_, size) => {
    await expect(restore(await danglingFile(size))).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringMatching(
        /^Cannot restore "sub"\/"file": .* blob b3:\S+: it is missing$/,
      ),
    });
    expect(found()).toEqual([]);
  });

  it("leaves nothing if its root is missing", async () => {
    const digest = blake3Digest(Buffer.from("no directory"));
    await expect(restore({ type: "directory", digest, size: 0n })).rejects.toMatchObject({
      code: "not_found",
    });
    expect(found()).toEqual([]);
  });

  it.each([0, 1, 300, 610])("leaves nothing when cancelled after %d entries", async (count) => {
    const controller = new AbortController();
    const reason = new Error("enough");
    if (count === 0) controller.abort(reason);
    const onProgress = ({ entries }: { entries: number }) => {
      if (entries === count) controller.abort(reason);
    };
    await expect(restore(node, { signal: controller.signal, onProgress })).rejects.toBe(reason);
    expect(found()).toEqual([]);
  });
});
