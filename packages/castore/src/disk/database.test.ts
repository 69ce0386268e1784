import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { cutOff, flipBits } from "../../test/damage.ts";
import { noise } from "../../test/noise.ts";
import { canMount, fillDisk, mountSmallDisk, unmount } from "../../test/small-disk.ts";
import { CastoreError } from "../model/errors.ts";
import {
  beginWrite,
  closeDatabase,
  commit,
  openDatabase,
  rollback,
  sqliteError,
} from "./database.ts";
import type { Database } from "./sqlite.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "database-"));
  path = join(folder, "some/folders/above.sqlite");
});
afterEach(() => rmSync(folder, { recursive: true }));

const FORMAT = { applicationId: 4711, version: 2, schema: "CREATE TABLE things (x)" };

/** What SQLite itself throws. */
function thrownBy(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  throw new Error("expected something to be thrown");
}

describe("openDatabase", () => {
  it("creates a database and the folders above it, and opens it again as it was", async () => {
    const created = await openDatabase(path, FORMAT);
    expect(created.pragma("application_id", { simple: true })).toBe(4711);
    expect(created.pragma("user_version", { simple: true })).toBe(2);
    created.exec("INSERT INTO things VALUES (1)");
    created.close();
    const again = await openDatabase(path, FORMAT);
    expect(again.prepare("SELECT x FROM things").pluck().all()).toEqual([1]);
    again.close();
  });

  it("makes commits durable: a write-ahead log that is synchronised with each", async () => {
    const database = await openDatabase(path, FORMAT);
    expect(database.pragma("journal_mode", { simple: true })).toBe("wal");
    expect(database.pragma("synchronous", { simple: true })).toBe(2);
    database.close();
  });

  it("opens a temporary database that leaves no file", async () => {
    const database = await openDatabase(":memory:", FORMAT);
    expect(database.prepare("SELECT count(*) FROM things").pluck().get()).toBe(0);
    database.close();
    expect(existsSync(":memory:")).toBe(false);
  });

  it("is opened by many at the same time, one of which creates it", async () => {
    const opened = await Promise.all(Array.from({ length: 8 }, () => openDatabase(path, FORMAT)));
    for (const database of opened) {
      expect(database.prepare("SELECT count(*) FROM things").pluck().get()).toBe(0);
      database.close();
    }
  });

  it.each([
    ["another application id", { ...FORMAT, applicationId: 42 }, "expected application id 42"],
    ["an older version", { ...FORMAT, version: 1 }, "expected schema version 1, found 2"],
    ["a newer version", { ...FORMAT, version: 3 }, "expected schema version 3, found 2"],
  ])("refuses a database with %s than is expected, and names it", async (_, format, reason) => {
    (await openDatabase(path, FORMAT)).close();
    const opening = openDatabase(path, format);
    await expect(opening).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining(reason),
    });
    await expect(opening).rejects.toThrow(`"${path}"`);
    const database = await openDatabase(path, FORMAT);
    expect(database.pragma("user_version", { simple: true })).toBe(2);
    database.close();
  });

  it("refuses a file that is no database, and leaves it as it is", async () => {
    const file = join(folder, "text");
    writeFileSync(file, "some text, ".repeat(1000));
    await expect(openDatabase(file, FORMAT)).rejects.toMatchObject({
      code: "data_loss",
      message: expect.stringContaining("SQLITE_NOTADB"),
    });
    expect(existsSync(`${file}-wal`)).toBe(false);
  });

  it("creates nothing when its schema cannot be created", async () => {
    const broken = { ...FORMAT, schema: "CREATE TABLE things (x); CREATE TABLE things (x)" };
    await expect(openDatabase(path, broken)).rejects.toMatchObject({ code: "internal" });
    const database = await openDatabase(path, FORMAT);
    expect(database.prepare("SELECT count(*) FROM things").pluck().get()).toBe(0);
    database.close();
  });

  it("creates one anew where a file is empty, and fills it at once", async () => {
    closeDatabase(await openDatabase(path, FORMAT));
    truncateSync(path, 0);
    let filled = 0;
    const fill = async (database: Database) => {
      filled += 1;
      database.exec("INSERT INTO things VALUES (1)");
    };
    const opened = await Promise.all([1, 2, 3].map(() => openDatabase(path, FORMAT, { fill })));
    for (const database of opened) {
      expect(database.prepare("SELECT x FROM things").pluck().all()).toEqual([1]);
      closeDatabase(database);
    }
    expect(filled).toBe(1);
  });

  it("creates nothing when it cannot be filled", async () => {
    const reason = new Error("enough");
    const fill = async (database: Database) => {
      database.exec("INSERT INTO things VALUES (1)");
      throw reason;
    };
    await expect(openDatabase(path, FORMAT, { fill })).rejects.toBe(reason);
    const database = await openDatabase(path, FORMAT);
    expect(database.prepare("SELECT count(*) FROM things").pluck().get()).toBe(0);
    closeDatabase(database);
  });

  it("refuses a path below a file", async () => {
    writeFileSync(join(folder, "file"), "");
    await expect(openDatabase(join(folder, "file/x/y.sqlite"), FORMAT)).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining("not a directory"),
    });
  });

  it("rejects with the reason when it is cancelled before", async () => {
    const reason = new Error("enough");
    await expect(openDatabase(path, FORMAT, { signal: AbortSignal.abort(reason) })).rejects.toBe(
      reason,
    );
    expect(await openDatabase(path, FORMAT).then((database) => database.close())).toBeDefined();
  });
});

describe("beginWrite", () => {
  it("waits for another connection to finish, while other events have their turn", async () => {
    const [one, other] = [await openDatabase(path, FORMAT), await openDatabase(path, FORMAT)];
    await beginWrite(one);
    one.exec("INSERT INTO things VALUES (1)");
    const waiting = beginWrite(other);
    setImmediate(() => one.exec("COMMIT"));
    await waiting;
    expect(other.prepare("SELECT x FROM things").pluck().all()).toEqual([1]);
    rollback(other);
    one.close();
    other.close();
  });

  it("rejects with the reason when it is cancelled while it waits, and holds no lock", async () => {
    const [one, other] = [await openDatabase(path, FORMAT), await openDatabase(path, FORMAT)];
    await beginWrite(one);
    const controller = new AbortController();
    const reason = new Error("enough");
    const waiting = beginWrite(other, { signal: controller.signal });
    setImmediate(() => controller.abort(reason));
    await expect(waiting).rejects.toBe(reason);
    one.exec("COMMIT");
    expect(other.inTransaction).toBe(false);
    await beginWrite(one);
    one.close();
    other.close();
  });
});

describe("commit", () => {
  it("leaves nothing in the log that would hide what is in the database, if it were damaged", async () => {
    const schema = "CREATE TABLE things (x BLOB PRIMARY KEY) WITHOUT ROWID";
    const database = await openDatabase(path, { ...FORMAT, schema });
    const insert = database.prepare<[Uint8Array]>("INSERT INTO things VALUES (?)");
    const { size } = statSync(path);
    let count = 0;
    // Until the log is moved into the database: the next commit begins it anew.
    while (statSync(path).size === size) {
      await beginWrite(database);
      for (const end = count + 50; count < end; count++) insert.run(noise(32, count));
      commit(database);
    }
    for (let seed = 1; seed <= 20; seed++) {
      const copy = join(folder, `${seed}`);
      cpSync(dirname(path), copy, { recursive: true }); // as it is when the process is killed
      const damaged = join(copy, basename(path));
      if (seed % 2 === 0) cutOff(`${damaged}-wal`, seed);
      else flipBits(`${damaged}-wal`, seed);
      const found = await openDatabase(damaged, FORMAT);
      expect(found.pragma("quick_check", { simple: true }), `with seed ${seed}`).toBe("ok");
      expect(found.prepare("SELECT count(*) FROM things").pluck().get()).toBe(count);
      closeDatabase(found);
    }
    closeDatabase(database);
  });
});

describe("rollback", () => {
  it("undoes what was written, and does nothing outside of a transaction or after closing", async () => {
    const database = await openDatabase(path, FORMAT);
    await beginWrite(database);
    database.exec("INSERT INTO things VALUES (1)");
    rollback(database);
    expect(database.prepare("SELECT count(*) FROM things").pluck().get()).toBe(0);
    rollback(database);
    database.close();
    rollback(database);
    expect(database.open).toBe(false);
  });
});

describe("sqliteError", () => {
  it("tells causes apart, and keeps what SQLite said", async () => {
    const database = await openDatabase(":memory:", FORMAT);
    database.pragma("max_page_count = 4");
    const full = thrownBy(() => database.exec("INSERT INTO things VALUES (zeroblob(100000))"));
    expect(sqliteError(full, "Cannot write")).toMatchObject({
      code: "resource_exhausted",
      message: expect.stringMatching(/^Cannot write: .*\(SQLITE_FULL\)$/),
      cause: full,
    });
    database.pragma("query_only = ON");
    const refused = thrownBy(() => database.exec("DELETE FROM things"));
    expect(sqliteError(refused, "Cannot write")).toMatchObject({ code: "permission_denied" });
    const wrong = thrownBy(() => database.exec("no SQL"));
    expect(sqliteError(wrong, "Cannot write")).toMatchObject({ code: "internal" });
    database.close();
  });

  it.each([new Error("other"), new CastoreError("aborted", "ours"), undefined])(
    "passes on what is not of SQLite: %s",
    (error) => {
      expect(sqliteError(error, "Cannot write")).toBe(error);
    },
  );
});

describe.skipIf(!canMount)(
  `a full disk${canMount ? "" : " (missing: permission to mount one)"}`,
  () => {
    const disk = () => join(folder, "disk");
    const count = (database: Database) =>
      database.prepare("SELECT count(*) FROM things").pluck().get();

    /** Makes a disk with a database that is closed. */
    async function create(options?: { files: number }): Promise<void> {
      mkdirSync(disk());
      mountSmallDisk(disk(), 2, options);
      path = join(disk(), "some.sqlite");
      const database = await openDatabase(path, FORMAT);
      database.exec("INSERT INTO things VALUES (1)");
      closeDatabase(database);
    }

    /** Takes all files that a disk can have. */
    function takeFiles(): void {
      for (let i = 0; ; i++) {
        try {
          writeFileSync(join(disk(), `${i}`), "");
        } catch (error) {
          expect((error as NodeJS.ErrnoException).code).toBe("ENOSPC");
          return;
        }
      }
    }

    afterEach(() => unmount(disk()));

    it.each([
      ["no room", undefined, () => fillDisk(disk())],
      ["no room for a file", { files: 20 }, takeFiles],
    ])("with %s lets a database be opened and read that was closed", async (_, options, fill) => {
      await create(options);
      for (let i = 0; i < 3; i++) {
        fill(); // whatever was left when it was closed
        const first = await openDatabase(path, FORMAT);
        const second = await openDatabase(path, FORMAT);
        expect([count(first), count(second)]).toEqual([1, 1]);
        for (const database of [first, second]) closeDatabase(database);
      }
    });

    it("is told by writers, who leave nothing", async () => {
      await create();
      fillDisk(disk());
      const database = await openDatabase(path, FORMAT);
      const large = thrownBy(() => database.exec("INSERT INTO things VALUES (zeroblob(1000000))"));
      expect(sqliteError(large, "Cannot write")).toMatchObject({ code: "resource_exhausted" });
      expect(count(database)).toBe(1);
      closeDatabase(database);
    });

    it.each([
      ["no room", undefined, () => fillDisk(disk())],
      ["no room for a file", { files: 20 }, takeFiles],
    ])(
      "with %s is told where none was kept, and all is well once there is",
      async (_, options, fill) => {
        await create(options);
        const others = readdirSync(disk()).filter((name) => name !== "some.sqlite");
        for (const name of others) rmSync(join(disk(), name));
        fill();
        await expect(openDatabase(path, FORMAT)).rejects.toMatchObject({
          code: "resource_exhausted",
          message: expect.stringContaining(path),
        });
        for (const name of readdirSync(disk())) {
          if (!name.startsWith("some.sqlite")) rmSync(join(disk(), name));
        }
        const database = await openDatabase(path, FORMAT);
        expect(count(database)).toBe(1);
        closeDatabase(database);
        const kept = readdirSync(disk()).filter((name) => name.includes("reserve"));
        expect(kept.map((name) => statSync(join(disk(), name)).size)).toEqual([2 ** 18, 2 ** 18]);
      },
    );
  },
);
