import { mkdtempSync, readFileSync, readSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { PackDescriptors } from "./pack-descriptors.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "descriptors-"));
  for (let i = 0; i < 100; i++) writeFileSync(join(folder, String(i)), `pack ${i}`);
});
afterEach(() => rmSync(folder, { recursive: true }));

const open = () => new PackDescriptors((pack) => join(folder, String(pack)));

/** Reads the file of a descriptor. */
function readAll(fd: number): string {
  const bytes = Buffer.alloc(100);
  return bytes.toString("latin1", 0, readSync(fd, bytes, 0, bytes.length, 0));
}

it("keeps a descriptor open while it is used, however many others are", () => {
  using packs = open();
  const used = packs.take(0);
  for (let i = 1; i < 100; i++) {
    expect(readAll(packs.take(i))).toBe(`pack ${i}`);
    packs.give(i);
  }
  expect(packs.take(0)).toBe(used);
  expect(readAll(used)).toBe("pack 0");
  expect(readFileSync(`/proc/self/fd/${used}`, "latin1")).toBe("pack 0");
});

it("closes one that is used when it is given back, once it is disposed of", () => {
  const packs = open();
  const [used, spare] = [packs.take(1), packs.take(2)];
  packs.give(2);
  packs[Symbol.dispose]();
  expect(() => readAll(spare)).toThrow("EBADF");
  expect(readAll(used)).toBe("pack 1");
  packs.give(1);
  expect(() => readAll(used)).toThrow("EBADF");
});

it("passes on why a pack cannot be opened", () => {
  using packs = open();
  expect(() => packs.take(100)).toThrow("ENOENT");
});
