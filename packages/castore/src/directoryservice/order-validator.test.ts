import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Directory } from "../model/directory.ts";
import { MAX_MESSAGE_BYTES } from "../model/limits.ts";
import { pathComponent } from "../model/path.ts";
import { encodeDirectory } from "./encoded-directory.ts";
import { LeavesToRootValidator, RootToLeavesValidator } from "./order-validator.ts";

function parentOf(...directories: readonly [name: string, directory: Directory, more?: bigint][]) {
  return Directory.from(
    directories.map(([name, directory, more = 0n]) => {
      const { digest } = encodeDirectory(directory);
      const node = { type: "directory", digest, size: directory.size + more } as const;
      return { name: pathComponent(name), node };
    }),
  );
}

const EMPTY = Directory.from([]);
const MIDDLE = parentOf(["empty", EMPTY]);
const ROOT = parentOf(["a", EMPTY], ["b", MIDDLE]);
const WRONG = parentOf(["empty", EMPTY, 1n]);
const digestOf = (directory: Directory) => encodeDirectory(directory).digest;

describe("LeavesToRootValidator", () => {
  function check(...directories: readonly Directory[]) {
    const validator = new LeavesToRootValidator();
    for (const directory of directories) validator.add(encodeDirectory(directory));
    return validator.finish();
  }

  it("takes directories that come after all they refer to, and gives the root", () => {
    expect(check(EMPTY, MIDDLE, ROOT)).toEqual(digestOf(ROOT));
    expect(check(EMPTY)).toEqual(digestOf(EMPTY));
  });

  it("tells which ones came before", () => {
    const validator = new LeavesToRootValidator();
    expect(validator.add(encodeDirectory(EMPTY))).toBe(true);
    expect(validator.add(encodeDirectory(EMPTY))).toBe(false);
  });

  it("refuses an encoding that no message could hold", () => {
    const validator = new LeavesToRootValidator();
    const encoded = encodeDirectory(EMPTY);
    const longest = new Uint8Array(MAX_MESSAGE_BYTES);
    const longer = new Uint8Array(MAX_MESSAGE_BYTES + 1);
    expect(() => validator.add({ ...encoded, bytes: longer })).toThrow(
      expect.objectContaining({
        code: "resource_exhausted",
        message: expect.stringContaining(`found ${MAX_MESSAGE_BYTES + 1}`),
      }),
    );
    expect(validator.add({ ...encoded, bytes: longest })).toBe(true);
  });

  it.each([
    ["nothing", [], "found none"],
    ["one that comes too early", [MIDDLE, EMPTY], 'entry "empty" refers to'],
    ["a size that is not right", [EMPTY, WRONG], 'entry "empty" states size 1, which'],
    ["one that is not reached", [EMPTY, MIDDLE, EMPTY], "cannot be reached"],
    ["two roots", [EMPTY, MIDDLE, Directory.from([])], "cannot be reached"],
  ])("refuses %s", (_, directories, reason) => {
    expect(() => check(...directories)).toThrow(
      expect.objectContaining({
        code: "invalid_argument",
        message: expect.stringContaining(reason),
      }),
    );
  });
});

describe("RootToLeavesValidator", () => {
  function check(root: Directory, ...directories: readonly Directory[]) {
    const validator = new RootToLeavesValidator(digestOf(root));
    for (const directory of directories) validator.add(encodeDirectory(directory));
    validator.finish();
  }

  it("takes directories that come once, after one that refers to them", () => {
    check(ROOT, ROOT, EMPTY, MIDDLE);
    check(ROOT, ROOT, MIDDLE, EMPTY);
  });

  it("takes none at all: the root is absent then", () => {
    expect(() => check(ROOT)).not.toThrow();
  });

  it.each([
    ["another root", ROOT, [MIDDLE], "expected the root"],
    ["one that nothing refers to", MIDDLE, [MIDDLE, ROOT], "no directory before it refers to it"],
    ["one that came before", ROOT, [ROOT, EMPTY, EMPTY], "it came before"],
    ["a size that is not right", WRONG, [WRONG, EMPTY], "states size 1, which"],
    ["an end before all have come", ROOT, [ROOT, EMPTY], 'entry "b"'],
  ])("refuses %s", (_, root, directories, reason) => {
    expect(() => check(root, ...directories)).toThrow(
      expect.objectContaining({
        code: "invalid_argument",
        message: expect.stringContaining(reason),
      }),
    );
  });
});

describe("any order of the directories of any tree", () => {
  const runs = { seed: 1, numRuns: 500 };

  /** Directories, each of which refers to some before it by their positions. The last one is the root. */
  interface Tree {
    readonly directories: readonly Directory[];
    readonly children: readonly (readonly number[])[];
  }

  function treeOf(picks: readonly (readonly number[])[]): Tree {
    const directories: Directory[] = [];
    const children: number[][] = [];
    const add = (positions: readonly number[]) => {
      const own = [...new Set(positions)];
      const entries = own.map((at): [string, Directory] => [`d${at}`, directories[at]!]);
      // Its own name makes each a directory of its own.
      const marked = parentOf([`own ${directories.length}`, EMPTY], ...entries);
      directories.push(marked);
      children.push(own);
    };
    directories.push(EMPTY);
    children.push([]);
    for (const pick of picks) add([0, ...pick.map((value) => value % directories.length)]);
    const referred = new Set(children.flat());
    add([0, ...directories.keys().filter((at) => !referred.has(at))]);
    return { directories, children };
  }

  const someTree = fc.array(fc.array(fc.nat(), { maxLength: 3 }), { maxLength: 4 }).map(treeOf);
  const orderOf = ({ directories }: Tree) =>
    fc.oneof(
      fc.shuffledSubarray([...directories.keys()], { minLength: 1 }),
      fc.shuffledSubarray([...directories.keys()], { minLength: directories.length }),
      fc.array(fc.nat(directories.length - 1), { minLength: 1, maxLength: 8 }),
    );
  const someOrder = someTree.chain((tree) => fc.tuple(fc.constant(tree), orderOf(tree)));

  function accepts(check: () => void): boolean {
    try {
      check();
      return true;
    } catch (error) {
      expect(error).toMatchObject({ name: "CastoreError", code: "invalid_argument" });
      return false;
    }
  }

  function fromLeaves({ directories }: Tree, order: readonly number[]): boolean {
    return accepts(() => {
      const validator = new LeavesToRootValidator();
      for (const at of order) validator.add(encodeDirectory(directories[at]!));
      expect(validator.finish()).toEqual(digestOf(directories[order.at(-1)!]!));
    });
  }

  function fromRoot({ directories }: Tree, order: readonly number[]): boolean {
    return accepts(() => {
      const validator = new RootToLeavesValidator(digestOf(directories[order[0]!]!));
      for (const at of order) validator.add(encodeDirectory(directories[at]!));
      validator.finish();
    });
  }

  /** Everything below a directory, and itself. */
  function closure({ children }: Tree, root: number): Set<number> {
    const found = new Set([root]);
    for (const at of found) for (const child of children[at]!) found.add(child);
    return found;
  }

  it("is taken from the leaves if all that one refers to comes before it, and the root last", () => {
    let taken = 0;
    fc.assert(
      fc.property(someOrder, ([tree, order]) => {
        const below = closure(tree, order.at(-1)!);
        const expected = order.every(
          (at, i) =>
            below.has(at) && tree.children[at]!.every((child) => order.slice(0, i).includes(child)),
        );
        expect(fromLeaves(tree, order)).toBe(expected);
        if (expected) taken += 1;
      }),
      runs,
    );
    expect(taken).toBeGreaterThan(20);
    expect(taken).toBeLessThan(runs.numRuns - 20);
  });

  it("is taken from the root if each comes once, after one that refers to it, and none is missing", () => {
    let taken = 0;
    fc.assert(
      fc.property(someOrder, ([tree, order]) => {
        const expected =
          new Set(order).size === order.length &&
          order.length === closure(tree, order[0]!).size &&
          order.every(
            (at, i) => i === 0 || order.slice(0, i).some((up) => tree.children[up]!.includes(at)),
          );
        expect(fromRoot(tree, order)).toBe(expected);
        if (expected) taken += 1;
      }),
      runs,
    );
    expect(taken).toBeGreaterThan(20);
    expect(taken).toBeLessThan(runs.numRuns - 20);
  });

  it("that is made from the leaves, is one from the root the other way round", () => {
    fc.assert(
      fc.property(someTree, (tree) => {
        const order = [...tree.directories.keys()];
        expect(fromLeaves(tree, order)).toBe(true);
        expect(fromRoot(tree, order.toReversed())).toBe(true);
      }),
      runs,
    );
  });
});
