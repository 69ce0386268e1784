import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MemoryBlobService } from "../blobservice/memory.ts";
import { MemoryDirectoryService } from "../directoryservice/memory.ts";
import { importPath } from "./fs.ts";
import { stampTree } from "./stamp-tree.ts";
import { TreeStamp } from "./tree-stamp.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "stamp-"));
  mkdirSync(join(folder, "sub/empty"), { recursive: true });
  for (let i = 0; i < 1500; i++) writeFileSync(join(folder, "sub", `${i}`), `${i}`);
  writeFileSync(join(folder, "file"), "old");
  symlinkSync("file", join(folder, "link"));
});

afterEach(() => rmSync(folder, { recursive: true }));

describe("the stamp of a tree", () => {
  it("stays, as long as nothing changes, and is the one that an import takes", async () => {
    const services = {
      blobService: new MemoryBlobService(),
      directoryService: new MemoryDirectoryService(),
    };
    const exclude = (path: Uint8Array) => Buffer.from(path).toString() === "sub/7";
    for (const options of [{}, { exclude }]) {
      const taken = new TreeStamp();
      await importPath(folder, services, { ...options, stamp: taken });
      const stamp = await stampTree(folder, options);
      expect(stamp.digest).toBe(taken.digest);
      expect(stamp.entries).toBe(options.exclude ? 1504 : 1505);
      expect(taken.entries).toBe(stamp.entries);
    }
  });

  const file = () => join(folder, "file");
  it.each<[string, () => void]>([
    [
      "contents of the same length, and the time set back",
      () => {
        const { atime, mtime } = statSync(file());
        writeFileSync(file(), "new");
        utimesSync(file(), atime, mtime);
      },
    ],
    [
      "another file in its place",
      () => {
        writeFileSync(join(folder, "..", "stamp-other"), "old");
        renameSync(join(folder, "..", "stamp-other"), file());
      },
    ],
    ["a right to execute", () => chmodSync(file(), 0o755)],
    ["a new name", () => renameSync(file(), join(folder, "renamed"))],
    [
      "another target of a symlink",
      () => {
        rmSync(join(folder, "link"));
        symlinkSync("sub", join(folder, "link"));
      },
    ],
    ["an entry more", () => writeFileSync(join(folder, "sub/empty/new"), "")],
    ["an entry less", () => rmSync(join(folder, "sub/1499"))],
    [
      "a symlink to what it was in its place",
      () => {
        renameSync(join(folder, "sub"), join(folder, "moved"));
        symlinkSync("moved", join(folder, "sub"));
      },
    ],
  ])("differs with %s", async (_, change) => {
    const before = await stampTree(folder);
    await new Promise((resolve) => setTimeout(resolve, 20)); // times of file systems go by ticks
    change();
    const after = await stampTree(folder);
    expect(after.digest).not.toBe(before.digest);
    expect(after.newestMs).toBeGreaterThan(before.newestMs);
  });

  it("of a single file differs when that changes", async () => {
    const { digest, entries } = await stampTree(file());
    expect(entries).toBe(1);
    chmodSync(file(), 0o400);
    expect((await stampTree(file())).digest).not.toBe(digest);
  });

  it("is not taken of what is missing, nor when that is cancelled", async () => {
    const missing = stampTree(join(folder, "missing"));
    await expect(missing).rejects.toMatchObject({ code: "not_found" });
    const reason = new Error("enough");
    const cancelled = stampTree(folder, { signal: AbortSignal.abort(reason) });
    await expect(cancelled).rejects.toBe(reason);
  });
});
