import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { equalBytes } from "../bytes/byte-string.ts";
import { CastoreError } from "../model/errors.ts";
import { openDatabase } from "./database.ts";
import { KeyValueTable, type KeyValueTableOptions, type Row } from "./key-value-table.ts";

const APPLICATION_ID = 4711;

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "table-"));
  path = join(folder, "table.sqlite");
});
afterEach(() => rmSync(folder, { recursive: true }));

function open(
  at = path,
  options: Pick<KeyValueTableOptions, "merge" | "isSeenEarly"> = {},
): Promise<KeyValueTable> {
  return KeyValueTable.open({
    ...options,
    path: at,
    applicationId: APPLICATION_ID,
    table: "things",
    keyColumn: "name",
  });
}

/** Another connection, as another process has one. */
function connect() {
  return openDatabase(path, { applicationId: APPLICATION_ID, version: 1, schema: "" });
}

const bytes = (text: string): Uint8Array => Buffer.from(text);
const row = (key: string, data = key): Row => [bytes(key), bytes(data)];
const text = (data: Uint8Array | undefined) => data && Buffer.from(data).toString();
const keys = (rows: readonly Row[]) => rows.map(([key]) => text(key));

function* failingAfter(rows: readonly Row[], error: Error): Generator<Row> {
  yield* rows;
  throw error;
}

describe("writes to a KeyValueTable that need not outlive a power failure", () => {
  it("are seen by others, and make way for those that do", async () => {
    await using table = await open();
    await using other = await open();
    await table.put([row("a", "1")], { isDurable: false });
    expect(text(other.get(bytes("a")))).toBe("1");
    await Promise.all([
      table.put([row("b", "2")], { isDurable: false }),
      table.put([row("c", "3")]),
      table.remove(row("a", "1"), { isDurable: false }),
    ]);
    expect(keys(other.page(bytes(""), 10))).toEqual(["b", "c"]);
  });
});

describe("a KeyValueTable whose rows are seen early", () => {
  const openEarly = () => open(path, { isSeenEarly: true });

  it("stores rows that wait for the disk, and rows that do not, also many at once", async () => {
    const many = Array.from({ length: 200 }, (_, i) => `row ${String(i).padStart(3, "0")}`);
    {
      await using table = await openEarly();
      await using other = await openEarly();
      const puts = many.map((key, i) =>
        (i % 3 ? table : other).put([row(key)], { isDurable: i % 2 === 0 }),
      );
      await Promise.all(puts);
      expect(keys(other.page(bytes(""), 1000))).toEqual(many);
    }
    await using table = await openEarly();
    expect(keys(table.page(bytes(""), 1000))).toEqual(many);
  });

  it("refuses what cannot be stored, and goes on", async () => {
    await using table = await openEarly();
    const failure = new Error("no more rows");
    await expect(table.put(failingAfter([row("a")], failure))).rejects.toBe(failure);
    await table.put([row("b")]);
    expect(keys(table.page(bytes(""), 10))).toEqual(["b"]);
  });

  it("closes while rows wait for the disk", async () => {
    const table = await openEarly();
    const puts = ["a", "b", "c"].map((key) => table.put([row(key)]));
    await table[Symbol.asyncDispose]();
    await Promise.all(puts);
    await using again = await openEarly();
    expect(keys(again.page(bytes(""), 10))).toEqual(["a", "b", "c"]);
  });
});

describe.each([
  ["in a file", () => path],
  ["in memory", () => ":memory:"],
])("KeyValueTable %s", (_, at) => {
  it("gives what was put under a key, and undefined for what was not", async () => {
    await using table = await open(at());
    await table.put([row("a", "1"), row("b", "2"), [bytes("empty"), new Uint8Array(0)]]);
    expect(text(table.get(bytes("a")))).toBe("1");
    expect(text(table.get(bytes("empty")))).toBe("");
    expect(table.get(bytes("c"))).toBeUndefined();
    expect(table.get(new Uint8Array(0))).toBeUndefined();
  });

  it("merges what is put with what is under its key, also within one put", async () => {
    const merge = (stored: Uint8Array, given: Uint8Array) => Buffer.concat([stored, given]);
    await using table = await open(at(), { merge });
    await table.put([row("a", "1")]);
    await Promise.all([table.put([row("a", "2")]), table.put([row("a", "3"), row("a", "4")])]);
    expect(text(table.get(bytes("a")))).toBe("1234");
    await table.put([row("a", "1234")]); // the same bytes: there is nothing to merge
    expect(text(table.get(bytes("a")))).toBe("1234");
  });

  it("stores nothing of a put whose merging throws, which it rejects with", async () => {
    const failure = new CastoreError("resource_exhausted", "too much");
    const merge = () => {
      throw failure;
    };
    await using table = await open(at(), { merge });
    await table.put([row("a", "1")]);
    const other = table.put([row("c", "1")]);
    await expect(table.put([row("b", "1"), row("a", "2")])).rejects.toBe(failure);
    await other;
    expect(["a", "b", "c"].map((key) => text(table.get(bytes(key))))).toEqual([
      "1",
      undefined,
      "1",
    ]);
  });

  it("replaces what is under a key, also within one put, where the last one counts", async () => {
    await using table = await open(at());
    await table.put([row("a", "1")]);
    await table.put([row("a", "2")]);
    expect(text(table.get(bytes("a")))).toBe("2");
    await table.put([row("a", "3"), row("a", "4")]);
    expect(text(table.get(bytes("a")))).toBe("4");
  });

  it("gives pages of rows ordered by the bytes of their keys", async () => {
    await using table = await open(at());
    const inOrder = ["A", "a", "a\0", "aa", "b", "\x7f", "é"];
    await table.put(inOrder.toReversed().map((key) => row(key)));
    expect(keys(table.page(new Uint8Array(0), 10))).toEqual(inOrder);
    expect(keys(table.page(new Uint8Array(0), 2))).toEqual(["A", "a"]);
    expect(keys(table.page(bytes("a"), 2))).toEqual(["a\0", "aa"]);
    expect(keys(table.page(bytes("aaa"), 10))).toEqual(["b", "\x7f", "é"]);
    expect(table.page(bytes("é"), 10)).toEqual([]);
  });

  it("gives fewer rows at a time where they are large, and each as it was put", async () => {
    await using table = await open(at());
    const large = (i: number): Row => [Uint8Array.of(i), Buffer.alloc(400_000, i)];
    const rows = [large(0), large(1), large(2)];
    rows.push([Uint8Array.of(3), Buffer.alloc(2 ** 21, 3)]);
    const small = Array.from({ length: 256 }, (_, i): Row => {
      const data = Buffer.from([i, 0, 255 - i, 0x2c, 0xc3, i]);
      return [Uint8Array.of(4, i), data.subarray(0, i % 7)];
    });
    rows.push(...small);
    await table.put(rows);
    const found: Row[] = [];
    const counts: number[] = [];
    for (let after = new Uint8Array(0); ; after = new Uint8Array(found.at(-1)![0])) {
      const page = table.page(after, 100);
      if (page.length === 0) break;
      counts.push(page.length);
      found.push(...page);
    }
    expect(found.length).toBe(rows.length);
    for (const [i, [key, data]] of rows.entries()) {
      expect(equalBytes(found[i]![0], key)).toBe(true);
      expect(equalBytes(found[i]![1], data)).toBe(true);
    }
    for (const count of counts.slice(0, 3)) expect(count).toBeLessThan(3);
    expect(counts).toContain(100);
  });

  it("removes a row only while it is as it was found", async () => {
    await using table = await open(at());
    await table.put([row("a", "damaged")]);
    await Promise.all([table.put([row("a", "healed")]), table.remove(row("a", "damaged"))]);
    expect(text(table.get(bytes("a")))).toBe("healed");
    await table.remove(row("a", "healed"));
    expect(table.get(bytes("a"))).toBeUndefined();
    await table.remove(row("a", "healed"));
  });

  it("removes the row of a key, whatever it is", async () => {
    await using table = await open(at());
    await table.put([row("a", "1"), row("b", "2")]);
    await Promise.all([table.put([row("a", "changed")]), table.removeKey(bytes("a"))]);
    await table.removeKey(bytes("absent"));
    expect(keys(table.page(bytes(""), 10))).toEqual(["b"]);
  });

  it("stores nothing of rows that fail on the way, but all that others put meanwhile", async () => {
    await using table = await open(at());
    const error = new Error("no more rows");
    const many = Array.from({ length: 1200 }, (_, i) => row(`failed ${i}`));
    const outcomes = await Promise.allSettled([
      table.put([row("before")]),
      table.put({ [Symbol.iterator]: () => failingAfter(many, error) }),
      table.put([row("after")]),
    ]);
    expect(outcomes).toEqual([
      { status: "fulfilled", value: undefined },
      { status: "rejected", reason: error },
      { status: "fulfilled", value: undefined },
    ]);
    expect(keys(table.page(new Uint8Array(0), 10))).toEqual(["after", "before"]);
    await table.put([row("later")]);
    expect(text(table.get(bytes("later")))).toBe("later");
  });

  it("stores what is put at the same time by many", async () => {
    await using table = await open(at());
    await Promise.all(Array.from({ length: 300 }, (_, i) => table.put([row(`${i}`)])));
    expect(table.page(new Uint8Array(0), 1000).length).toBe(300);
  });

  it("does not store what was cancelled before its turn came", async () => {
    await using table = await open(at());
    const reason = new Error("enough");
    await expect(table.put([row("before")], { signal: AbortSignal.abort(reason) })).rejects.toBe(
      reason,
    );
    const controller = new AbortController();
    const storing = table.put([row("waiting")], { signal: controller.signal });
    const other = table.put([row("other")]);
    controller.abort(reason);
    await expect(storing).rejects.toBe(reason);
    await other;
    expect(keys(table.page(new Uint8Array(0), 10))).toEqual(["other"]);
  });

  it("finishes what was put before it is disposed of", async () => {
    const table = await open(at());
    const storing = table.put(Array.from({ length: 2000 }, (_, i) => row(`${i}`)));
    await table[Symbol.asyncDispose]();
    await expect(storing).resolves.toBeUndefined();
  });
});

describe("KeyValueTable", () => {
  it("shows nothing of a put before all of it is stored, while others read", async () => {
    await using table = await open();
    const rows = Array.from({ length: 3000 }, (_, i) => row(`${i}`));
    let storing = true;
    const stored = table.put(rows).then(() => {
      storing = false;
    });
    const seen = new Set<number>();
    while (storing) {
      const { length } = table.page(new Uint8Array(0), 5000);
      if (storing) seen.add(length);
      await new Promise(setImmediate);
    }
    await stored;
    expect([...seen]).toEqual([0]);
    expect(table.page(new Uint8Array(0), 5000).length).toBe(3000);
  });

  it("waits for another process that writes, and can be cancelled meanwhile", async () => {
    await using table = await open();
    const other = await connect();
    other.exec("BEGIN IMMEDIATE");
    const controller = new AbortController();
    const reason = new Error("enough");
    const cancelled = table.put([row("cancelled")], { signal: controller.signal });
    const waiting = table.put([row("waiting")]);
    setImmediate(() => controller.abort(reason));
    await expect(cancelled).rejects.toBe(reason);
    expect(table.get(bytes("waiting"))).toBeUndefined();
    other.exec("COMMIT");
    other.close();
    await waiting;
    expect(keys(table.page(new Uint8Array(0), 10))).toEqual(["waiting"]);
  });

  it("leaves the file alone when the same bytes are put again", async () => {
    await using table = await open();
    const other = await connect();
    const version = () => other.pragma("data_version", { simple: true });
    await table.put([row("a")]);
    const before = version();
    await table.put([row("a")]);
    expect(version()).toBe(before);
    await table.put([row("a", "other")]);
    expect(version()).not.toBe(before);
    other.close();
  });

  it("names the database and the cause when a read fails", async () => {
    await using table = await open();
    const other = await connect();
    other.exec("DROP TABLE things");
    other.close();
    expect(() => table.get(bytes("a"))).toThrow(
      expect.objectContaining({
        name: "CastoreError",
        message: expect.stringContaining(`Cannot read from database "${path}"`),
      }),
    );
    await expect(table.put([row("a")])).rejects.toMatchObject({
      name: "CastoreError",
      message: expect.stringContaining(`Cannot write to database "${path}"`),
    });
  });
});
