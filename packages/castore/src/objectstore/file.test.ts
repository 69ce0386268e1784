import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { canMount, mountSmallDisk, unmount } from "../../test/small-disk.ts";
import { collectBytes } from "../bytes/byte-string.ts";
import { FileObjectStore } from "./file.ts";

let folder: string;
let root: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "file-objects-"));
  root = join(folder, "objects");
});

afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

async function prototypeOfFiles(): Promise<FileHandle> {
  await using file = await open(folder);
  return Object.getPrototypeOf(file) as FileHandle;
}

/** The folders that are synced from now on, in order. The first sync of one waits until it is let go. */
async function watchSyncs(held: string): Promise<{ synced: string[]; letGo: () => void }> {
  const files = await prototypeOfFiles();
  const sync = files.sync;
  const synced: string[] = [];
  const { promise, resolve: letGo } = Promise.withResolvers<void>();
  vi.spyOn(files, "sync").mockImplementation(async function (this: FileHandle) {
    const path = readlinkSync(`/proc/self/fd/${this.fd}`);
    synced.push(path);
    if (path === held) await promise;
    await sync.call(this);
  });
  return { synced, letGo };
}

describe("objects in files", () => {
  it("share the syncs of their folder", async () => {
    await using store = new FileObjectStore(root);
    await store.put("a/first", Buffer.from("x"));
    const { synced, letGo } = await watchSyncs(join(root, "a"));
    const puts = Array.from({ length: 64 }, (_, i) => store.put(`a/${i}`, Buffer.from(`${i}`)));
    while (readdirSync(join(root, "a")).length < 65) await setImmediate();
    for (let i = 0; i < 100; i++) await setImmediate();
    letGo();
    await Promise.all(puts);
    expect(synced.length).toBeLessThan(8);
    expect(new Set(synced)).toEqual(new Set([join(root, "a")]));
  });

  it("are durable with every folder above, though somebody else made it just now", async () => {
    await using store = new FileObjectStore(root);
    await store.put("first", Buffer.from("x"));
    mkdirSync(join(root, "a/b"), { recursive: true });
    const { synced, letGo } = await watchSyncs("");
    letGo();
    await store.put("a/b/c", Buffer.from("x"));
    expect(synced).toEqual([root, join(root, "a"), join(root, "a/b")]);
  });

  it("are stored where the folder could not be made at first", async () => {
    writeFileSync(root, "a file in the way");
    await using store = new FileObjectStore(`${root}/`);
    const stored = store.put("a", Buffer.from("x"));
    await expect(stored).rejects.toMatchObject({ name: "CastoreError", code: "invalid_argument" });
    rmSync(root);
    await store.put("a", Buffer.from("x"));
    expect(await store.head("a")).toMatchObject({ key: "a", size: 1 });
  });

  it("leave alone what others are writing, and remove what is older than a day", async () => {
    const uploads = join(root, "~uploads");
    await using store = new FileObjectStore(root);
    await using other = new FileObjectStore(root);
    await using writing = other.openUpload("b");
    await writing.write(Buffer.from("half "));
    await using dead = other.openUpload("c");
    await dead.write(Buffer.from("x"));
    const [first, second] = readdirSync(uploads);
    const lastWeek = new Date(Date.now() - 7 * 24 * 60 * 60 * 1000);
    const isFirst = statSync(join(uploads, first!)).size === 1;
    const abandoned = isFirst ? first! : second!;
    utimesSync(join(uploads, abandoned), lastWeek, lastWeek);

    await store.put("a", Buffer.from("x"));
    expect(readdirSync(uploads)).toEqual([isFirst ? second : first]);
    await writing.write(Buffer.from("and half"));
    await writing.close();
    expect(Buffer.from(await collectBytes((await store.get("b"))!)).toString()).toBe(
      "half and half",
    );
    await expect(dead.close()).rejects.toMatchObject({ name: "CastoreError", code: "unavailable" });
    expect(await store.head("c")).toBeUndefined();
  });

  it("are what they were when their reader began, though they are replaced", async () => {
    await using store = new FileObjectStore(root);
    await store.put("a", Buffer.alloc(1_000_000, "old"));
    const reading = (await store.get("a"))!;
    await store.put("a", Buffer.alloc(2_000_000, "new"));
    const found = Buffer.from(await collectBytes(reading));
    expect(Buffer.compare(found, Buffer.alloc(2_000_000, "new"))).toBe(0);
    const again = (await store.get("a"))!;
    await store.delete("a");
    await expect(collectBytes(again)).rejects.toMatchObject({ code: "aborted" });
  });
});

describe.skipIf(!canMount)(`objects on a full disk${canMount ? "" : " (missing: mount)"}`, () => {
  beforeEach(() => {
    mkdirSync(root);
    mountSmallDisk(root, 2);
  });

  afterEach(() => unmount(root));

  it("are refused whole, and leave room for others", async () => {
    await using store = new FileObjectStore(root);
    const full = { name: "CastoreError", code: "resource_exhausted" };
    await store.put("a/first", Buffer.from("x"));
    await expect(store.put("a/large", Buffer.alloc(3_000_000))).rejects.toMatchObject(full);
    {
      await using upload = store.openUpload("b/large");
      const write = async () => {
        for (let i = 0; i < 30; i++) await upload.write(Buffer.alloc(100_000));
      };
      await expect(write()).rejects.toMatchObject(full);
    }
    expect(readdirSync(join(root, "~uploads"))).toEqual([]);
    expect(readdirSync(join(root, "a"))).toEqual(["first"]);
    expect(existsSync(join(root, "b"))).toBe(false);
    await store.put("a/large", Buffer.alloc(1_000_000));
  });
});
