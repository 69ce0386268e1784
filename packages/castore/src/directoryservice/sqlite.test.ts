import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { canMount, mountSmallDisk, unmount } from "../../test/small-disk.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import { B3Digest } from "../model/digest.ts";
import { Directory, type DirectoryEntry } from "../model/directory.ts";
import { pathComponent } from "../model/path.ts";
import { encodeDirectory } from "./encoded-directory.ts";
import { SqliteDirectoryService } from "./sqlite.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "directories-"));
  path = join(folder, "below/directories.sqlite");
});
afterEach(() => rmSync(folder, { recursive: true }));

function file(name: string): DirectoryEntry {
  const digest = blake3Digest(Buffer.from(name));
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

/** How many transactions a write-ahead log holds, see https://www.sqlite.org/fileformat2.html#walformat */
function countCommits(wal: string): number {
  const log = readFileSync(wal);
  const pageSize = log.readUInt32BE(8);
  let commits = 0;
  for (let frame = 32; frame + 24 + pageSize <= log.length; frame += 24 + pageSize) {
    if (log.readUInt32BE(frame + 4) !== 0) commits += 1;
  }
  return commits;
}

/** Puts 50 trees at the same time, each a leaf and a root above it; gives the digests of the roots. */
async function putInAnotherProcess(path: string): Promise<B3Digest[]> {
  const castore = JSON.stringify(new URL("../index.ts", import.meta.url).href);
  const program = `
    import { blake3Digest, Directory, encodeDirectory, pathComponent, SqliteDirectoryService } from ${castore};
    await using service = await SqliteDirectoryService.open({ path: ${JSON.stringify(path)} });
    const roots = await Promise.all(Array.from({ length: 50 }, async (_, i) => {
      const target = { type: "file", digest: blake3Digest(Buffer.from("x")), size: 1n, executable: false };
      const leaf = Directory.from([{ name: pathComponent("theirs " + i), node: target }]);
      const node = { type: "directory", digest: encodeDirectory(leaf).digest, size: leaf.size };
      await using putter = service.openPutter();
      await putter.put(leaf);
      await putter.put(Directory.from([{ name: pathComponent("0"), node }]));
      return (await putter.close()).hex;
    }));
    console.log(roots.join(" "));`;
  const run = promisify(execFile);
  const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", program]);
  return stdout
    .trim()
    .split(" ")
    .map((hex) => B3Digest.fromBytes(Buffer.from(hex, "hex")));
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

  it("stores a tree of very many small directories", async () => {
    const many = Array.from({ length: 5_000 }, (_, i) => Directory.from([file(`${i}`)]));
    const root = parentOf(many);
    await using service = await SqliteDirectoryService.open({ path });
    await put(service, [...many, root]);
    expect(await count(service, root)).toBe(5_001);
  });

  it("commits trees together that are closed at the same time", async () => {
    await using service = await SqliteDirectoryService.open({ path });
    const before = countCommits(`${path}-wal`);
    const leaves = Array.from({ length: 64 }, (_, i) => Directory.from([file(`${i}`)]));
    await Promise.all(leaves.map((leaf) => put(service, [leaf])));
    const commits = countCommits(`${path}-wal`) - before;
    expect(commits).toBeGreaterThanOrEqual(1);
    expect(commits).toBeLessThan(8);
    for (const leaf of leaves) expect(await service.get(digestOf(leaf))).toBeDefined();
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

  it("is shared by several processes that write at the same time", async () => {
    await using service = await SqliteDirectoryService.open({ path });
    const [theirs, ours] = await Promise.all([
      putInAnotherProcess(path),
      Promise.all(
        Array.from({ length: 50 }, (_, i) => {
          const leaf = Directory.from([file(`ours ${i}`)]);
          return put(service, [leaf, parentOf([leaf])]);
        }),
      ),
    ]);
    expect(theirs.length).toBe(50);
    for (const root of [...theirs, ...ours]) {
      const found = [];
      for await (const directory of service.getRecursive(root)) found.push(directory.size);
      expect(found).toEqual([4n, 2n]);
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

  it("does not wait to remove a damaged row while another process writes", async () => {
    const reports: string[] = [];
    const onCorrupt = (message: string) => reports.push(message);
    const bytesOf = (database: Sqlite.Database) =>
      database.prepare("SELECT data FROM directories").pluck().get();
    const other = await (async () => {
      await using service = await SqliteDirectoryService.open({ path, onCorrupt });
      await put(service, [LEAF]);
      tamper("UPDATE directories SET data = ?", Uint8Array.of(1, 2, 3));
      const other = new Sqlite(path);
      other.exec("BEGIN IMMEDIATE");
      expect(await service.get(digestOf(LEAF))).toBeUndefined();
      expect(reports.length).toBe(1);
      expect(bytesOf(other)).toEqual(Buffer.of(1, 2, 3));
      other.exec("COMMIT");
      return other;
    })();
    expect(bytesOf(other)).toBeUndefined();
    other.close();
  });

  it("warns of damage where nobody else wants to be told", async () => {
    await using service = await SqliteDirectoryService.open({ path });
    await put(service, [LEAF]);
    tamper("UPDATE directories SET data = ?", Uint8Array.of(1, 2, 3));
    const warn = vi.spyOn(process, "emitWarning").mockReturnValue(undefined);
    try {
      expect(await service.get(digestOf(LEAF))).toBeUndefined();
      expect(warn.mock.calls).toEqual([[expect.stringContaining(`${digestOf(LEAF)}`)]]);
    } finally {
      warn.mockRestore();
    }
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

  it("refuses a database with the application id of something else", async () => {
    mkdirSync(join(folder, "below"));
    const other = new Sqlite(path);
    other.pragma("application_id = 4711");
    other.exec("CREATE TABLE directories (digest BLOB PRIMARY KEY, data BLOB) WITHOUT ROWID");
    other.close();
    await expect(SqliteDirectoryService.open({ path })).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining("4711"),
    });
  });

  it("can be cancelled while it waits for another process to open the database", async () => {
    await (await SqliteDirectoryService.open({ path }))[Symbol.asyncDispose]();
    const other = new Sqlite(path);
    other.exec("BEGIN IMMEDIATE");
    const controller = new AbortController();
    const reason = new Error("enough");
    const opening = SqliteDirectoryService.open({ path, signal: controller.signal });
    setImmediate(() => controller.abort(reason));
    await expect(opening).rejects.toBe(reason);
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

describe.skipIf(!canMount)(
  `a full disk${canMount ? "" : " (missing: permission to mount one)"}`,
  () => {
    beforeEach(() => {
      mkdirSync(join(folder, "below"));
      mountSmallDisk(join(folder, "below"), 1);
    });
    afterEach(() => {
      unmount(join(folder, "below"));
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
  },
);
