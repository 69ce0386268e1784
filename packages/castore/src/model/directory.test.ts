import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { blake3Digest } from "../hash/blake3-digest.ts";
import { Directory, type DirectoryEntry } from "./directory.ts";
import { CastoreError } from "./errors.ts";
import { symlinkTarget } from "./node.ts";
import { pathComponent } from "./path.ts";

const digest = blake3Digest(Buffer.from("abc"));
const MAX_UINT64 = 2n ** 64n - 1n;

function file(name: string | Uint8Array): DirectoryEntry {
  const node = { type: "file", digest, size: 3n, executable: false } as const;
  return { name: pathComponent(name), node };
}

function folder(name: string, size: bigint): DirectoryEntry {
  return { name: pathComponent(name), node: { type: "directory", digest, size } };
}

function link(name: string): DirectoryEntry {
  return { name: pathComponent(name), node: { type: "symlink", target: symlinkTarget("x") } };
}

describe("Directory", () => {
  it("may be empty", () => {
    const directory = Directory.from([]);
    expect(directory.entries).toEqual([]);
    expect(directory.size).toBe(0n);
    expect(directory.get(pathComponent("a"))).toBeUndefined();
  });

  it("is the same for entries in any order, each name of which it finds", () => {
    const name = fc
      .uint8Array({ minLength: 1, maxLength: 4 })
      .filter((bytes) => !bytes.some((byte) => byte === 0 || byte === 0x2f || byte === 0x2e));
    const names = fc.uniqueArray(name, { selector: (bytes) => Buffer.from(bytes).toString("hex") });
    const shuffled = names.chain((all) =>
      fc.tuple(fc.constant(all), fc.shuffledSubarray(all, { minLength: all.length })),
    );
    fc.assert(
      fc.property(shuffled, ([some, others]) => {
        const directory = Directory.from(some.map(file));
        expect(Directory.from(others.map(file)).entries).toEqual(directory.entries);
        expect(directory.size).toBe(2n * BigInt(some.length));
        for (const { name } of some.map(file)) expect(directory.get(name)).toBeDefined();
        for (const [i, { name }] of directory.entries.entries()) {
          if (i > 0) expect(Buffer.compare(directory.entries[i - 1]!.name, name)).toBe(-1);
        }
      }),
      { seed: 1, numRuns: 300 },
    );
  });

  it("sorts its entries by the bytes of their names, whatever they are", () => {
    // By UTF-16 code units, the second of these two would come first.
    const names = ["\u{ff61}", "\u{1f600}", "a", "B", "a.b", "a-b", "aa"];
    const directory = Directory.from([
      file(Uint8Array.of(0xff)),
      ...names.map((name, i) => (i % 2 === 0 ? file(name) : link(name))),
    ]);
    const sorted = directory.entries.map(({ name }) => Buffer.from(name).toString("hex"));
    expect(sorted).toEqual(["42", "61", "612d62", "612e62", "6161", "efbda1", "f09f9880", "ff"]);
  });

  it("leaves the list it is made of as it is", () => {
    const entries = [file("b"), file("a")];
    Directory.from(entries);
    expect(entries).toEqual([file("b"), file("a")]);
  });

  it("counts its entries twice, and what its sub-directories count", () => {
    const entries = [file("a"), link("b"), folder("c", 0n), folder("d", 40n)];
    expect(Directory.from(entries).size).toBe(48n);
  });

  it("finds every entry by its name, and no other", () => {
    const names = Array.from({ length: 33 }, (_, i) => `name ${i * 2}`);
    const directory = Directory.from(names.map((name, i) => folder(name, BigInt(i))));
    for (const [i, name] of names.entries()) {
      expect(directory.get(pathComponent(name))).toMatchObject({ size: BigInt(i) });
      expect(directory.get(pathComponent(`${name}x`))).toBeUndefined();
    }
    expect(directory.get(pathComponent("a"))).toBeUndefined();
    expect(directory.get(pathComponent("z"))).toBeUndefined();
  });

  it.each([
    ["alike", file("same"), file("same")],
    ["of different types", folder("same", 1n), link("same")],
  ])("refuses two entries of one name, %s", (_name, one, other) => {
    expect(() => Directory.from([one, file("a"), other])).toThrow(
      new CastoreError("invalid_argument", 'Cannot build directory: name "same" occurs twice'),
    );
  });

  it("takes a size that just fits 64 bits", () => {
    const directory = Directory.from([folder("a", MAX_UINT64 - 4n), file("b")]);
    expect(directory.size).toBe(MAX_UINT64);
  });

  it.each([
    ["one sub-directory and itself", [folder("a", MAX_UINT64)], 2n ** 64n + 1n],
    ["two sub-directories", [folder("a", 2n ** 63n), folder("b", 2n ** 63n)], 2n ** 64n + 4n],
  ])("refuses a size above 64 bits, of %s", (_name, entries, size) => {
    expect(() => Directory.from(entries)).toThrow(
      new CastoreError(
        "invalid_argument",
        `Cannot build directory: its size ${size} exceeds 64 bits`,
      ),
    );
  });
});
