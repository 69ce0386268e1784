import { describe, expect, it } from "vitest";
import { encodeDirectory } from "../convert.ts";
import { Directory } from "../directory.ts";
import { MAX_MESSAGE_BYTES } from "../limits.ts";
import { pathComponent } from "../path.ts";
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
    ["a size that is not right", [EMPTY, WRONG], 'entry "empty" states size 1, expected 0'],
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
    ["a size that is not right", WRONG, [WRONG, EMPTY], "states size 1, expected 0"],
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
