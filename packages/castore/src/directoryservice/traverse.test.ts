import { describe, expect, it } from "vitest";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { B3Digest } from "../model/digest.ts";
import { Directory, type DirectoryEntry } from "../model/directory.ts";
import type { Node } from "../model/node.ts";
import { pathComponent } from "../model/path.ts";
import { encodeDirectory } from "./encoded-directory.ts";
import { MemoryDirectoryService } from "./memory.ts";
import { descendTo, traverseDirectory } from "./traverse.ts";

const digestOf = (directory: Directory) => encodeDirectory(directory).digest;

function nodeOf(directory: Directory, more = 0n): Node {
  return { type: "directory", digest: digestOf(directory), size: directory.size + more };
}

function folder(name: string, directory: Directory, more = 0n): DirectoryEntry {
  return { name: pathComponent(name), node: nodeOf(directory, more) };
}

function file(name: string): DirectoryEntry {
  const digest = blake3Digest(Buffer.from(name));
  return { name: pathComponent(name), node: { type: "file", digest, size: 1n, executable: false } };
}

const EMPTY = Directory.from([]);
const LEAF = Directory.from([file("leaf")]);
const LOW = Directory.from([folder("empty", EMPTY)]);
const LEFT = Directory.from([folder("leaf", LEAF), folder("low", LOW)]);
const RIGHT = Directory.from([file("file"), folder("leaf", LEAF)]);
const ROOT = Directory.from([folder("left", LEFT), folder("right", RIGHT)]);

/** A backend that holds exactly these, whether or not they fit together, and counts what is asked. */
function backend(...directories: readonly Directory[]) {
  const stored = new Map(directories.map((directory) => [digestOf(directory).hex, directory]));
  const asked: string[] = [];
  const getMany = async (digests: readonly B3Digest[]) => {
    asked.push(...digests.map(({ hex }) => hex));
    return digests.map(({ hex }) => stored.get(hex));
  };
  return { getMany, asked };
}

async function collect(directories: AsyncIterable<Directory>): Promise<Directory[]> {
  const found: Directory[] = [];
  for await (const directory of directories) found.push(directory);
  return found;
}

describe("traverseDirectory", () => {
  it("yields nothing if the root is absent", async () => {
    expect(await collect(traverseDirectory(backend().getMany, digestOf(ROOT)))).toEqual([]);
  });

  it("goes level by level, and asks once for what is referred to twice", async () => {
    const { getMany, asked } = backend(EMPTY, LEAF, LOW, LEFT, RIGHT, ROOT);
    const found = await collect(traverseDirectory(getMany, digestOf(ROOT)));
    expect(found).toEqual([ROOT, LEFT, RIGHT, LEAF, LOW, EMPTY]);
    expect(asked).toEqual(found.map((directory) => digestOf(directory).hex));
  });

  it("walks a tree of many levels of many directories, each once", async () => {
    const chains = Array.from({ length: 1500 }, (_, i) => {
      const chain = [Directory.from([file(`${i}`)])];
      for (let level = 0; level < 3; level++) {
        chain.push(Directory.from([folder("below", chain.at(-1)!)]));
      }
      return chain;
    });
    const root = Directory.from(chains.map((chain, i) => folder(`${i}`, chain.at(-1)!)));
    const all = [root, ...chains.flat()];
    const found = await collect(traverseDirectory(backend(...all).getMany, digestOf(root)));
    expect(found.length).toBe(6001);
    expect(new Set(found)).toEqual(new Set(all));
  });

  it("names what is missing, and where", async () => {
    const { getMany } = backend(ROOT, LEFT, RIGHT, LEAF, LOW);
    await expect(collect(traverseDirectory(getMany, digestOf(ROOT)))).rejects.toMatchObject({
      code: "data_loss",
      message:
        `Cannot read the tree below ${digestOf(ROOT)}: entry "empty" of directory ${digestOf(LOW)} ` +
        `refers to ${digestOf(EMPTY)}, which is missing`,
    });
  });

  const wrong = Directory.from([folder("leaf", LEAF, 5n)]);
  const wrongLater = Directory.from([folder("a", LEAF), folder("b", LEAF, 5n)]);
  it.each([
    [
      "a directory that is not of the size stated",
      wrong,
      [],
      "stating size 7, which it does not have",
    ],
    [
      "a second reference that states another size",
      wrongLater,
      [],
      "stating size 7, which it does not have",
    ],
    [
      "a reference from elsewhere that states another size",
      Directory.from([folder("a", wrong), folder("b", LEAF)]),
      [wrong],
      "stating size 7, which it does not have",
    ],
  ])("refuses %s", async (_, root, more, reason) => {
    const { getMany } = backend(root, LEAF, ...more);
    await expect(collect(traverseDirectory(getMany, digestOf(root)))).rejects.toMatchObject({
      code: "data_loss",
      message: expect.stringContaining(reason),
    });
  });

  it("leaves out what is skipped and what only that leads to, and does not read it", async () => {
    const { getMany, asked } = backend(EMPTY, LEAF, LOW, LEFT, RIGHT, ROOT);
    const questions: string[] = [];
    const skip = async (digests: readonly B3Digest[]) => {
      questions.push(...digests.map(({ hex }) => hex));
      return digests.map((digest) => digest.equals(digestOf(LEFT)));
    };
    const found = await collect(traverseDirectory(getMany, digestOf(ROOT), { skip }));
    expect(found).toEqual([ROOT, RIGHT, LEAF]);
    expect(asked).toEqual(found.map((directory) => digestOf(directory).hex));
    expect(questions.toSorted()).toEqual(
      [LEFT, RIGHT, LEAF].map((directory) => digestOf(directory).hex).toSorted(),
    );
  });

  it("reads few directories at a time where they are large", async () => {
    const large = Array.from({ length: 8 }, (_, i) =>
      Directory.from(Array.from({ length: 20_000 }, (_, j) => file(`${i}-${j}`))),
    );
    const root = Directory.from(large.map((directory, i) => folder(`${i}`, directory)));
    const { getMany } = backend(root, ...large);
    const counts: number[] = [];
    const counted: typeof getMany = (digests) => {
      counts.push(digests.length);
      return getMany(digests);
    };
    expect((await collect(traverseDirectory(counted, digestOf(root)))).length).toBe(9);
    expect(counts).toEqual([1, ...large.map(() => 1)]);
  });

  it("passes on what the backend throws", async () => {
    const broken = new Error("broken");
    const { getMany } = backend(ROOT);
    const failing = async (digests: readonly B3Digest[]) => {
      const directories = await getMany(digests);
      if (directories.includes(undefined)) throw broken;
      return directories;
    };
    await expect(collect(traverseDirectory(failing, digestOf(ROOT)))).rejects.toBe(broken);
  });

  it("asks for nothing more once its reader has ended", async () => {
    const { getMany, asked } = backend(ROOT, LEFT, RIGHT, LEAF, LOW, EMPTY);
    for await (const directory of traverseDirectory(getMany, digestOf(ROOT))) {
      if (directory === LEFT) break;
    }
    expect(asked).toEqual([ROOT, LEFT, RIGHT].map((directory) => digestOf(directory).hex));
  });

  it("rejects with the reason when it is cancelled, before and between directories", async () => {
    const { getMany, asked } = backend(ROOT, LEFT, RIGHT, LEAF, LOW, EMPTY);
    const controller = new AbortController();
    const { signal } = controller;
    const reason = new Error("enough");
    const reading = async () => {
      for await (const directory of traverseDirectory(getMany, digestOf(ROOT), { signal })) {
        if (directory === LEFT) controller.abort(reason);
      }
    };
    await expect(reading()).rejects.toBe(reason);
    expect(asked.length).toBe(3); // the root, and the level below it
    await expect(reading()).rejects.toBe(reason);
    expect(asked.length).toBe(3);
  });

  it("gives other events their turn although the backend answers at once", async () => {
    const many = Array.from({ length: 1000 }, (_, i) => Directory.from([file(`${i}`)]));
    const root = Directory.from(many.map((directory, i) => folder(`${i}`, directory)));
    let seen = 0;
    let seenAtTurn = 0;
    setImmediate(() => {
      seenAtTurn = seen;
    });
    for await (const _ of traverseDirectory(backend(root, ...many).getMany, digestOf(root)))
      seen += 1;
    expect(seen).toBe(1001);
    expect(seenAtTurn).toBeGreaterThan(0);
    expect(seenAtTurn).toBeLessThan(1001);
  });
});

describe("descendTo", () => {
  const path = (...names: string[]) => names.map((name) => pathComponent(name));

  async function serviceOf(...directories: readonly Directory[]) {
    const service = new MemoryDirectoryService();
    await using putter = service.openPutter();
    for (const directory of directories) await putter.put(directory);
    await putter.close();
    return service;
  }
  const stored = () => serviceOf(EMPTY, LEAF, LOW, LEFT, RIGHT, ROOT);

  it("gives the root itself for an empty path, whatever it is", async () => {
    const service = new MemoryDirectoryService();
    const { node } = file("alone");
    expect(await descendTo(service, node, [])).toBe(node);
  });

  it("gives the node at the end of a path", async () => {
    const service = await stored();
    expect(await descendTo(service, nodeOf(ROOT), path("left", "low", "empty"))).toEqual(
      nodeOf(EMPTY),
    );
    expect(await descendTo(service, nodeOf(ROOT), path("left", "leaf", "leaf"))).toEqual(
      file("leaf").node,
    );
  });

  it.each([
    ["a name that is not there", ["left", "nothing"]],
    ["a name below one that is not there", ["nothing", "leaf"]],
    ["a name below a file", ["right", "file", "more"]],
  ])("gives nothing for %s", async (_, names) => {
    expect(await descendTo(await stored(), nodeOf(ROOT), path(...names))).toBeUndefined();
  });

  it("tells that a directory on the way is missing", async () => {
    const service = await serviceOf(LEAF);
    await expect(descendTo(service, nodeOf(ROOT), path("left"))).rejects.toMatchObject({
      code: "data_loss",
      message: expect.stringContaining(`${digestOf(ROOT)}`),
    });
  });

  it("rejects with the reason when it is cancelled", async () => {
    const reason = new Error("enough");
    const options = { signal: AbortSignal.abort(reason) };
    await expect(descendTo(await stored(), nodeOf(ROOT), [], options)).rejects.toBe(reason);
    await expect(descendTo(await stored(), nodeOf(ROOT), path("left"), options)).rejects.toBe(
      reason,
    );
  });
});
