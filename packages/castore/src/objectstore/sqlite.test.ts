import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { collectBytes } from "../bytes/byte-string.ts";
import { FileObjectStore } from "./file.ts";
import { SqliteObjectStore } from "./sqlite.ts";

const LARGE = Buffer.alloc(100_000, "large ");

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "sqlite-objects-"));
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function read(store: SqliteObjectStore, key: string): Promise<string | undefined> {
  const found = await store.get(key);
  return found && Buffer.from(await collectBytes(found)).toString();
}

async function list(store: SqliteObjectStore, ...args: Parameters<SqliteObjectStore["list"]>) {
  return await Array.fromAsync(store.list(...args), ({ key, size }) => `${key} ${size}`);
}

describe("objects in a database", () => {
  it("stand beside those that are files, which they replace", async () => {
    await using files = new FileObjectStore(folder);
    for (const key of ["nar/a", "nar/b", "nar/d"]) await files.put(key, Buffer.from("file"));
    await using store = await SqliteObjectStore.open(folder);
    await store.put("nar/c", Buffer.from("row"));
    await store.put("nar/b", Buffer.from("a row"));
    expect(await read(store, "nar/a")).toBe("file");
    expect(await read(store, "nar/b")).toBe("a row");
    expect(await list(store, "nar/")).toEqual(["nar/a 4", "nar/b 5", "nar/c 3", "nar/d 4"]);
    expect(await list(store, "", { after: "nar/b" })).toEqual(["nar/c 3", "nar/d 4"]);
    expect(readdirSync(join(folder, "nar")).sort()).toEqual(["a", "d"]);
    for (const key of ["nar/a", "nar/b"]) await store.delete(key);
    expect(await list(store, "")).toEqual(["nar/c 3", "nar/d 4"]);
  });

  it("are files where they are long, and rows again where they are not", async () => {
    await using store = await SqliteObjectStore.open(folder);
    await using other = await SqliteObjectStore.open(folder);
    const path = join(folder, "log/a");
    const upload = async (pieces: readonly Buffer[]) => {
      await using upload = store.openUpload("log/a");
      for (const piece of pieces) await upload.write(piece);
      await upload.close();
    };
    for (const store of [upload, async ([data]: readonly Buffer[]) => other.put("log/a", data!)]) {
      await store([Buffer.from("short")]);
      expect(existsSync(path)).toBe(false);
      expect(await read(other, "log/a")).toBe("short");
      await store([LARGE]);
      expect(existsSync(path)).toBe(true);
      expect(await read(other, "log/a")).toBe(LARGE.toString());
    }
    await upload([Buffer.from("1"), LARGE, Buffer.from("2")]);
    expect(await read(other, "log/a")).toBe(`1${LARGE}2`);
    await upload([Buffer.from("1"), Buffer.from("2")]);
    expect(await read(other, "log/a")).toBe("12");
    expect(existsSync(path)).toBe(false);
  });
});
