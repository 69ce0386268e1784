import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { encodeDirectory } from "../convert.ts";
import { B3Digest } from "../digest.ts";
import { Directory, type DirectoryEntry } from "../directory.ts";
import { pathComponent } from "../path.ts";
import { SqliteDirectoryService } from "./sqlite.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "directories-"));
  path = join(folder, "below/directories.sqlite");
});
afterEach(() => rmSync(folder, { recursive: true }));

function file(name: string): DirectoryEntry {
  const digest = B3Digest.of(Buffer.from(name));
  return { name: pathComponent(name), node: { type: "file", digest, size: 1n, executable: false } };
}

function parentOf(directories: readonly Directory[]): Directory {
  return Directory.from(
    directories.map((directory, i) => {
      const { digest } = encodeDirectory(directory);
      const node = { type: "directory", digest, size: directory.size } as const;
      return { name: pathComponent(`${i}`), node };
    }),
  );
}

const digestOf = (directory: Directory) => encodeDirectory(directory).digest;
const LEAF = Directory.from([file("leaf")]);
const ROOT = parentOf([LEAF]);

async function put(service: SqliteDirectoryService, directories: readonly Directory[]) {
  await using putter = service.openPutter();
  for (const directory of directories) await putter.put(directory);
  return await putter.close();
}

async function count(service: SqliteDirectoryService, root: Directory): Promise<number> {
  let count = 0;
  for await (const _ of service.getRecursive(digestOf(root))) count += 1;
  return count;
}

/** Changes the database behind the back of a service. */
function tamper(sql: string, ...values: unknown[]): void {
  const database = new Sqlite(path);
  database.prepare(sql).run(...values);
  database.close();
}

describe("SqliteDirectoryService", () => {
  it("keeps directories from one opening to the next", async () => {
    {
      await using service = await SqliteDirectoryService.open({ path });
      await put(service, [LEAF, ROOT]);
    }
    await using service = await SqliteDirectoryService.open({ path });
    expect(await count(service, ROOT)).toBe(2);
  });

  it("stores a tree that is too large to wait in memory, all or nothing", async () => {
    const wide = Array.from({ length: 600 }, (_, i) =>
      Directory.from(
        Array.from({ length: 300 }, (_, j) => file(`a name of some length ${i} ${j}`)),
      ),
    );
    const root = parentOf(wide);
    await using service = await SqliteDirectoryService.open({ path });
    {
      await using putter = service.openPutter();
      for (const directory of [...wide, root]) await putter.put(directory);
    }
    expect(await service.get(digestOf(wide[0]!))).toBeUndefined();
    await put(service, [...wide, root]);
    expect(await count(service, root)).toBe(601);
  });

  it("is shared by several services, each of which sees what the others stored", async () => {
    await using one = await SqliteDirectoryService.open({ path });
    await using other = await SqliteDirectoryService.open({ path });
    const trees = Array.from({ length: 30 }, (_, i) => {
      const leaf = Directory.from([file(`leaf ${i}`)]);
      return [leaf, parentOf([leaf])];
    });
    await Promise.all(trees.map((tree, i) => put(i % 2 === 0 ? one : other, tree)));
    for (const [, root] of trees) {
      expect(await count(one, root!)).toBe(2);
      expect(await count(other, root!)).toBe(2);
    }
  });

  it.each([
    ["another directory", encodeDirectory(ROOT).bytes],
    ["no directory", Uint8Array.of(1, 2, 3)],
  ])("counts a row as absent that holds %s, until it is put again", async (_, bytes) => {
    const reports: string[] = [];
    await using service = await SqliteDirectoryService.open({
      path,
      onCorrupt: (message) => reports.push(message),
    });
    await put(service, [LEAF, ROOT]);
    tamper("UPDATE directories SET data = ? WHERE digest = ?", bytes, digestOf(LEAF).bytes);
    await expect(count(service, ROOT)).rejects.toMatchObject({ code: "data_loss" });
    expect(reports).toEqual([expect.stringContaining(`${digestOf(LEAF)}`)]);
    expect(await service.get(digestOf(LEAF))).toBeUndefined();
    await put(service, [LEAF, ROOT]);
    expect(await count(service, ROOT)).toBe(2);
  });

  it("tells when a directory below is missing or of another size", async () => {
    await using service = await SqliteDirectoryService.open({ path });
    await put(service, [LEAF, ROOT]);
    tamper("DELETE FROM directories WHERE digest = ?", digestOf(LEAF).bytes);
    await expect(count(service, ROOT)).rejects.toMatchObject({
      code: "data_loss",
      message: expect.stringContaining('entry "0"'),
    });
  });

  it("refuses a file that is no database", async () => {
    mkdirSync(join(folder, "below"));
    writeFileSync(path, "no database ".repeat(1000));
    await expect(SqliteDirectoryService.open({ path })).rejects.toMatchObject({
      code: "data_loss",
      message: expect.stringContaining(path),
    });
  });

  it("refuses the database of something else, and leaves it as it is", async () => {
    mkdirSync(join(folder, "below"));
    const other = new Sqlite(path);
    other.exec("CREATE TABLE theirs (x)");
    await expect(SqliteDirectoryService.open({ path })).rejects.toMatchObject({
      code: "invalid_argument",
    });
    expect(other.prepare("SELECT name FROM sqlite_schema").pluck().all()).toEqual(["theirs"]);
    other.close();
  });

  it("waits while another process writes, and lets others have their turn", async () => {
    await using service = await SqliteDirectoryService.open({ path });
    const other = new Sqlite(path);
    other.exec("BEGIN IMMEDIATE");
    let stored = false;
    const storing = put(service, [LEAF]).then(() => {
      stored = true;
    });
    for (let turn = 0; turn < 20; turn++) await sleep(5);
    expect(stored).toBe(false);
    other.exec("COMMIT");
    other.close();
    await storing;
    expect(await service.get(digestOf(LEAF))).toBeDefined();
  });
});

const canMount = process.platform === "linux" && process.getuid?.() === 0;

describe.skipIf(!canMount)(`a full disk${canMount ? "" : " (missing: root, to mount one)"}`, () => {
  beforeEach(() => {
    mkdirSync(join(folder, "below"));
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", join(folder, "below")]);
  });
  afterEach(() => {
    execFileSync("umount", [join(folder, "below")]);
  });

  it("is told, and nothing of the tree is stored", async () => {
    await using service = await SqliteDirectoryService.open({ path });
    const many = Array.from({ length: 4000 }, (_, i) =>
      Directory.from([file(`a long name ${"x".repeat(200)} ${i}`)]),
    );
    await expect(put(service, [...many, parentOf(many)])).rejects.toMatchObject({
      code: "resource_exhausted",
    });
    expect(await service.get(digestOf(many[0]!))).toBeUndefined();
    await put(service, [LEAF]);
    expect(await service.get(digestOf(LEAF))).toBeDefined();
  });
});
