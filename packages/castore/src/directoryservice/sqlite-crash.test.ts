import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { cutOff, flipBits } from "../../test/damage.ts";
import { putTree, treeOf } from "../../test/tree.ts";
import { WritingProcess } from "../../test/writing-process.ts";
import { encodeDirectory } from "./encoded-directory.ts";
import { SqliteDirectoryService } from "./sqlite.ts";

const SCRIPT = new URL("../../test/write-trees.ts", import.meta.url);

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "directories-"));
  path = join(folder, "it/directories.sqlite");
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Whether the tree of a name is there: all of it, or nothing. */
async function isThere(service: SqliteDirectoryService, name: string): Promise<boolean> {
  const [leaf, root] = treeOf(name);
  const found = [];
  for await (const directory of service.getRecursive(encodeDirectory(root).digest)) {
    found.push(encodeDirectory(directory).digest.hex);
  }
  if (found.length === 0) return false;
  expect(found).toEqual([root, leaf].map((directory) => encodeDirectory(directory).digest.hex));
  return true;
}

describe("a database of directories that was damaged after a process was killed", () => {
  it.each([
    ["cut off", cutOff],
    ["full of flipped bits", flipBits],
  ])("has whole trees, the first ones, when its log is %s", async (_, damage) => {
    {
      await using service = await SqliteDirectoryService.open({ path });
      await putTree(service, treeOf("before"));
    }
    const writer = new WritingProcess<number>(SCRIPT, [path]);
    await writer.finishes(50);
    await writer.kill();
    const copy = join(folder, "it as it was");
    cpSync(join(folder, "it"), copy, { recursive: true });
    let lost = 0;
    for (let seed = 1; seed <= 4; seed++) {
      rmSync(join(folder, "it"), { recursive: true });
      cpSync(copy, join(folder, "it"), { recursive: true });
      damage(`${path}-wal`, seed);
      await using service = await SqliteDirectoryService.open({ path });
      expect(await isThere(service, "before")).toBe(true);
      let hasAll = true;
      for (const i of writer.finished) {
        const there = await isThere(service, `${i}`);
        expect(there && !hasAll, `with seed ${seed}`).toBe(false);
        if (!there) lost += 1;
        hasAll &&= there;
      }
      for (const i of writer.finished) {
        await putTree(service, treeOf(`${i}`));
        expect(await isThere(service, `${i}`)).toBe(true);
      }
    }
    expect(lost).toBeGreaterThan(0);
  });
});
