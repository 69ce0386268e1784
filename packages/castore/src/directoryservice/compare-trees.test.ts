import { beforeEach, describe, expect, it } from "vitest";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { B3Digest } from "../model/digest.ts";
import { Directory } from "../model/directory.ts";
import { type Node, symlinkTarget } from "../model/node.ts";
import { pathComponent } from "../model/path.ts";
import { compareTrees, type TreeDifference } from "./compare-trees.ts";
import { encodeDirectory } from "./encoded-directory.ts";

/** The directories that are stored, and those that were read. */
let stored: Map<string, Directory>;
let read: string[];
beforeEach(() => {
  stored = new Map();
  read = [];
});

const service = {
  async getMany(digests: readonly B3Digest[]) {
    read.push(...digests.map(({ hex }) => hex));
    return digests.map(({ hex }) => stored.get(hex));
  },
};

type Tree = string | { readonly [name: string]: Tree };

/** Stores a tree: objects are folders, texts are the contents of files, those after an arrow the targets of symlinks. */
function store(tree: Tree): Node {
  if (typeof tree === "string") {
    if (tree.startsWith("->")) return { type: "symlink", target: symlinkTarget(tree.slice(2)) };
    const bytes = Buffer.from(tree.replace(/!$/, ""));
    const executable = tree.endsWith("!");
    return { type: "file", digest: blake3Digest(bytes), size: BigInt(bytes.length), executable };
  }
  const directory = Directory.from(
    Object.entries(tree).map(([name, node]) => ({ name: pathComponent(name), node: store(node) })),
  );
  const { digest } = encodeDirectory(directory);
  stored.set(digest.hex, directory);
  return { type: "directory", digest, size: directory.size };
}

/** The differences, such as `~a/b`. */
async function compare(before: Tree, after: Tree): Promise<string[]> {
  const found: string[] = [];
  for await (const difference of compareTrees(store(before), store(after), service)) {
    found.push(show(difference));
  }
  return found;
}

function show({ path, before, after }: TreeDifference): string {
  const sign = before === undefined ? "+" : after === undefined ? "-" : "~";
  return sign + path.map((name) => Buffer.from(name).toString()).join("/");
}

describe("two trees", () => {
  it.each<[string, Tree, Tree, string[]]>([
    ["equal folders", { a: { b: "1" } }, { a: { b: "1" } }, []],
    ["equal files", "1", "1", []],
    ["other contents", { a: { b: "1" }, c: "2" }, { a: { b: "3" }, c: "2" }, ["~a/b"]],
    ["an execute bit", { a: "1" }, { a: "1!" }, ["~a"]],
    ["another target", { a: "->b" }, { a: "->c" }, ["~a"]],
    ["other types", { a: "1", b: "->c" }, { a: "->1", b: "c" }, ["~a", "~b"]],
    ["something more", { b: "1" }, { a: "1", b: "1", c: {} }, ["+a", "+c"]],
    ["something less", { a: { b: "1", c: { d: "2" } } }, {}, ["-a", "-a/b", "-a/c", "-a/c/d"]],
    ["a folder for a file", { a: "1" }, { a: { b: "2" } }, ["~a", "+a/b"]],
    ["a file for a folder", { a: { b: "2" }, c: "1" }, { a: "1", c: "1" }, ["~a", "-a/b"]],
    ["roots of other types", { a: "1" }, "1", ["~", "-a"]],
    [
      "names that sort bytewise",
      { "a.b": "1", a: { x: "1" } },
      { "a.b": "2", a: { x: "2" } },
      ["~a/x", "~a.b"],
    ],
  ])("have as differences: %s", async (_, before, after, expected) => {
    expect(await compare(before, after)).toEqual(expected);
  });

  it("are read only where their digests differ", async () => {
    const same = { deep: { deeper: { file: "1" } }, other: { file: "2" } };
    await compare({ same, changed: { x: "1" } }, { same, changed: { x: "2" } });
    expect(read).toHaveLength(4); // the roots and `changed` of both
    read = [];
    await compare(same, same);
    expect(read).toEqual([]);
  });

  it("may have thousands of folders", async () => {
    const tree = (text: string): Tree =>
      Object.fromEntries(
        Array.from({ length: 3000 }, (_, i) => [`${i}`, { file: i % 3 === 0 ? text : "same" }]),
      );
    const found = await compare(tree("a"), tree("b"));
    expect(found).toHaveLength(1000);
    expect(found).toContain("~2997/file");
    expect(new Set(read).size).toBe(4); // all folders are one of two
  });

  it("are refused if a directory is missing, by where it is", async () => {
    const [before, after] = [store({ a: { b: "1" } }), store({ a: { b: "2" } })];
    const below = encodeDirectory(Directory.from([{ name: pathComponent("b"), node: store("2") }]));
    stored.delete(below.digest.hex);
    const all = async () => await Array.fromAsync(compareTrees(before, after, service));
    await expect(all()).rejects.toMatchObject({
      code: "data_loss",
      message: `Cannot compare trees: directory ${below.digest} is missing`,
    });
    stored.clear();
    await expect(all()).rejects.toMatchObject({ code: "not_found" });
  });

  it("are not compared once cancelled", async () => {
    const options = { signal: AbortSignal.abort(new Error("enough")) };
    const differences = compareTrees(store("1"), store("2"), service, options);
    await expect(differences.next()).rejects.toThrow("enough");
  });
});
