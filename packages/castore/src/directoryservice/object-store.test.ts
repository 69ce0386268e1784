import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { collectBytes, concatBytes } from "../bytes/byte-string.ts";
import type { B3Digest } from "../model/digest.ts";
import { Directory } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import { pathComponent } from "../model/path.ts";
import { MemoryObjectStore } from "../objectstore/memory.ts";
import { objectKey } from "../objectstore/object-key.ts";
import { encodeDirectory } from "./encoded-directory.ts";
import { ObjectStoreDirectoryService } from "./object-store.ts";

const digestOf = (directory: Directory): B3Digest => encodeDirectory(directory).digest;
const treeKey = (directory: Directory) => objectKey("dirs", digestOf(directory));
const innerKey = (directory: Directory) => objectKey("dirs-inner", digestOf(directory));
const hexOf = (directories: readonly Directory[]) => directories.map((one) => digestOf(one).hex);

function parent(children: Readonly<Record<string, Directory>>): Directory {
  return Directory.from(
    Object.entries(children).map(([name, child]) => ({
      name: pathComponent(name),
      node: { type: "directory", digest: digestOf(child), size: child.size },
    })),
  );
}

const EMPTY = Directory.from([]);
const A = parent({ empty: EMPTY });
const B = parent({ a: A, "a-again": A, empty: EMPTY });
const C = parent({ b: B });
const D = parent({ only: C });
const ROOT = parent({ a: A, b: B, c: C, d: D });
/** A tree whose directories are referred to from several levels, leaves first. */
const TREE = [EMPTY, A, B, C, D, ROOT];

function open(store = new MemoryObjectStore()) {
  const warnings: string[] = [];
  const onCorrupt = (text: string) => warnings.push(text);
  return { store, warnings, service: new ObjectStoreDirectoryService({ store, onCorrupt }) };
}

async function put(service: ObjectStoreDirectoryService, directories: readonly Directory[]) {
  await using putter = service.openPutter();
  for (const directory of directories) await putter.put(directory);
  return await putter.close();
}

async function getAll(service: ObjectStoreDirectoryService, directory: Directory) {
  return hexOf(await Array.fromAsync(service.getRecursive(digestOf(directory)))).toSorted();
}

async function expectWhole(service: ObjectStoreDirectoryService, directory: Directory) {
  const below = new Set<string>();
  const visit = async (digest: B3Digest) => {
    const found = await service.get(digest);
    expect(found && digestOf(found).hex).toBe(digest.hex);
    below.add(digest.hex);
    for (const { node } of found!.entries) {
      if (node.type === "directory") await visit(node.digest);
    }
  };
  await visit(digestOf(directory));
  expect(await getAll(service, directory)).toEqual([...below].toSorted());
}

/** A store that tells what is put and looked up, and fails to put more than some objects. */
class WatchedObjectStore extends MemoryObjectStore {
  readonly sent: string[] = [];
  readonly lookedUp: string[] = [];
  allowed = Number.POSITIVE_INFINITY;

  override async put(...args: Parameters<MemoryObjectStore["put"]>): Promise<void> {
    if (this.sent.length >= this.allowed) throw new CastoreError("unavailable", "it is gone");
    this.sent.push(args[0]);
    await super.put(...args);
  }

  override async head(...args: Parameters<MemoryObjectStore["head"]>) {
    this.lookedUp.push(args[0]);
    return await super.head(...args);
  }
}

const dataLoss = { name: "CastoreError", code: "data_loss" };

describe("ObjectStoreDirectoryService", () => {
  it("shows nothing but what is whole, wherever storing a tree breaks off", async () => {
    for (let allowed = 0; allowed <= TREE.length; allowed++) {
      const store = new WatchedObjectStore();
      const { service } = open(store);
      store.allowed = allowed;
      await expect(put(service, TREE)).rejects.toMatchObject({ code: "unavailable" });
      for (const directory of TREE) {
        const found = await service.get(digestOf(directory));
        if (found !== undefined) await expectWhole(service, directory);
        else expect(await getAll(service, directory)).toEqual([]);
      }
      // The tree comes when every other directory is there, and the root with it.
      expect((await service.get(digestOf(ROOT))) !== undefined).toBe(allowed === TREE.length);
      store.allowed = Number.POSITIVE_INFINITY;
      await put(service, TREE);
      for (const directory of TREE) await expectWhole(service, directory);
      expect(store.sent.length).toBe(TREE.length + 1); // what was there is not sent twice
    }
  });

  it("sends nothing of a tree that is there, and of another one what is new", async () => {
    const store = new WatchedObjectStore();
    const { service } = open(store);
    await put(service, TREE);
    store.sent.length = 0;
    store.lookedUp.length = 0;
    await put(open(store).service, TREE);
    expect(store.sent).toEqual([]);
    const keys = [...TREE.map(innerKey), treeKey(ROOT)];
    expect(store.lookedUp.toSorted()).toEqual(keys.toSorted());
    const other = parent({ c: C, d: D, root: ROOT });
    await put(service, [...TREE, other]);
    expect(store.sent).toEqual([treeKey(other), innerKey(other)]);
    await put(service, [EMPTY, A, B]); // as a root it needs a tree of its own
    expect(store.sent.slice(2)).toEqual([treeKey(B)]);
    for (const directory of [...TREE, other]) await expectWhole(service, directory);
  });

  const lengthPrefixed = (directory: Directory): Uint8Array => {
    const { bytes } = encodeDirectory(directory);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    return concatBytes([length, bytes]);
  };
  const whole = concatBytes(TREE.toReversed().map(lengthPrefixed));
  /** What stands in place of the tree, and how many directories are read of it. */
  const wrongTrees: readonly (readonly [string, number, Uint8Array])[] = [
    ["nothing", 0, Buffer.alloc(0)],
    ["garbage", 0, Buffer.from("garbage")],
    ["another tree", 0, zstdCompressSync(lengthPrefixed(EMPTY))],
    ["a tree that breaks off", 5, zstdCompressSync(whole.subarray(0, -1))],
    ["a tree that lacks a directory", 5, zstdCompressSync(whole.subarray(0, -4))],
    ["a tree with more behind it", 6, zstdCompressSync(concatBytes([whole, Buffer.alloc(4)]))],
    ["a frame that breaks off", 0, zstdCompressSync(whole).subarray(0, 40)],
    ["a length of four gigabytes", 0, zstdCompressSync(Buffer.alloc(8, 0xff))],
    ["a frame that inflates to a gigabyte", 0, zstdCompressSync(Buffer.alloc(1_000_000_000))],
  ];

  it.each(wrongTrees)(
    "makes up for %s, or tells, and is healed by putting it again",
    async (_, count, object) => {
      const { store, service, warnings } = open();
      await put(service, TREE);
      await store.put(treeKey(ROOT), object);
      const isMet = count % 2 === 1; // by a reader of something below the root
      if (isMet) for (const directory of TREE.slice(0, -1)) await expectWhole(service, directory);
      // The first reader may meet the damage when something was handed on already; the next one meets it no more.
      const reading = getAll(service, ROOT);
      if (count > 0 && !isMet) await expect(reading).rejects.toMatchObject(dataLoss);
      await reading.catch(() => undefined);
      await expectWhole(service, ROOT);
      expect(warnings.join()).toContain(treeKey(ROOT));
      expect(warnings).toHaveLength(1);
      expect(await store.head(treeKey(ROOT))).toBeUndefined();
      await put(service, TREE);
      for (const directory of TREE) await expectWhole(open(store).service, directory);
      expect(await treeIn(store)).toEqual(Buffer.from(whole));
    },
  );

  it.each(wrongTrees)(
    "has no more of %s, written by tvix, than there is, and is healed",
    async (_, count, object) => {
      const { store, service } = open();
      await store.put(treeKey(ROOT), object);
      const found: Directory[] = [];
      const read = async () => {
        for await (const one of service.getRecursive(digestOf(ROOT))) found.push(one);
      };
      if (count === 0) await read();
      else await expect(read()).rejects.toMatchObject(dataLoss);
      expect(hexOf(found)).toEqual(hexOf(TREE.toReversed()).slice(0, count));
      expect(await service.get(digestOf(ROOT))).toBeUndefined();
      await put(service, TREE);
      for (const directory of TREE) await expectWhole(open(store).service, directory);
      expect(await treeIn(store)).toEqual(Buffer.from(whole));
    },
  );

  async function treeIn(store: MemoryObjectStore): Promise<Buffer> {
    return zstdDecompressSync(await collectBytes((await store.get(treeKey(ROOT)))!));
  }

  it("finds what is inside a tree of tvix through the root, and by itself once it is put", async () => {
    const { store, service } = open();
    await store.put(treeKey(ROOT), zstdCompressSync(whole));
    expect(digestOf((await service.get(digestOf(ROOT)))!).equals(digestOf(ROOT))).toBe(true);
    expect(await getAll(service, ROOT)).toEqual(hexOf(TREE).toSorted());
    expect(await service.get(digestOf(B))).toBeUndefined();
    expect(await getAll(service, B)).toEqual([]);
    await put(service, TREE);
    for (const directory of TREE) await expectWhole(service, directory);
  });

  it("reads what is inside a tree that is gone", async () => {
    const { store, service } = open();
    await put(service, TREE);
    await store.delete(treeKey(ROOT));
    for (const directory of TREE) await expectWhole(service, directory);
  });

  it.each<[string, (store: MemoryObjectStore) => Promise<unknown>]>([
    ["is damaged", (store) => store.put(innerKey(A), whole)],
    ["has no bytes", (store) => store.put(innerKey(A), new Uint8Array(0))],
    ["is gone", (store) => store.delete(innerKey(A))],
  ])("heals a directory that %s, below others that are there", async (_, damage) => {
    const { store, service } = open();
    await put(service, TREE);
    await damage(store);
    await store.delete(treeKey(ROOT));
    expect(await service.get(digestOf(A))).toBeUndefined();
    await expect(getAll(service, ROOT)).rejects.toMatchObject(dataLoss);
    expect(await getAll(service, A)).toEqual([]);
    await put(service, TREE);
    for (const directory of TREE) await expectWhole(service, directory);
  });

  it.each<[string, (store: MemoryObjectStore) => Promise<unknown>]>([
    ["a damaged directory", (store) => store.put(innerKey(A), whole)],
    [
      "a directory that is gone",
      async (store) => {
        await store.delete(treeKey(ROOT));
        await store.delete(innerKey(A));
      },
    ],
    ["a damaged tree", (store) => store.put(treeKey(ROOT), whole)],
    ["a damaged root", (store) => store.put(innerKey(ROOT), whole)],
  ])("has others heal %s that it has met", async (_, damage) => {
    const { store, service } = open();
    await put(service, TREE);
    await damage(store);
    const met = open(store).service;
    for (const directory of TREE) await met.get(digestOf(directory));
    for (const directory of TREE) await getAll(met, directory).catch(() => []);
    await put(open(store).service, TREE);
    for (const directory of TREE) await expectWhole(open(store).service, directory);
    const never = open();
    await put(never.service, TREE);
    const objects = await Array.fromAsync(store.list(""));
    expect(objects).toEqual(await Array.fromAsync(never.store.list("")));
  });

  it.each(TREE.map((_, i) => i))(
    "heals a tree of which a rule has deleted objects that nobody has missed yet: all but number %i",
    async (kept) => {
      const { store, service } = open();
      await put(service, TREE);
      const keys = [...TREE.map(innerKey), treeKey(ROOT)];
      for (const [i, key] of keys.entries()) if (i !== kept) await store.delete(key);
      await put(open(store).service, TREE);
      for (const directory of TREE) await expectWhole(open(store).service, directory);
    },
  );

  it("reads a tree by one request, though a rule has deleted what is beside it", async () => {
    const { store, service } = open();
    await put(service, TREE);
    for (const directory of TREE) await store.delete(innerKey(directory));
    const got: string[] = [];
    const get = store.get.bind(store);
    store.get = (key, ...rest) => {
      got.push(key);
      return get(key, ...rest);
    };
    expect(await getAll(service, ROOT)).toEqual(hexOf(TREE).toSorted());
    expect(got).toEqual([treeKey(ROOT)]);
  });

  it("stores and heals where the store gives no list, or deletes nothing", async () => {
    const { store, service, warnings } = open();
    const refused = () => new CastoreError("permission_denied", "it is not allowed");
    store.list = () => {
      throw refused();
    };
    store.delete = () => Promise.reject(refused());
    await put(service, TREE);
    await store.put(innerKey(A), Buffer.from("garbage, and long enough for a digest"));
    await store.put(treeKey(ROOT), Buffer.from("garbage"));
    expect(await service.get(digestOf(A))).toBeUndefined();
    expect(await service.hasMany([digestOf(A), digestOf(B)])).toEqual([false, true]);
    await expect(getAll(service, ROOT)).rejects.toMatchObject(dataLoss);
    await expect(getAll(service, ROOT)).rejects.toMatchObject(dataLoss);
    expect(warnings).toHaveLength(2); // each object once
    await put(service, TREE);
    for (const directory of TREE) await expectWhole(service, directory);
    expect(await service.hasMany([digestOf(A), digestOf(ROOT)])).toEqual([true, true]);
  });

  it("deletes nothing that comes back damaged once, and whole the next time", async () => {
    const { store, service, warnings } = open();
    await put(service, TREE);
    const get = store.get.bind(store);
    let damages = 1;
    store.get = (key, options) =>
      get(key, key === innerKey(A) && damages-- > 0 ? { ...options, length: 20 } : options);
    expect(digestOf((await service.get(digestOf(A)))!).hex).toBe(digestOf(A).hex);
    expect(warnings).toEqual([]);
    expect(await store.head(innerKey(A))).toBeDefined();
  });

  it("leaves alone what somebody stored while damage was met", async () => {
    const { store, service } = open();
    await put(service, TREE);
    await store.put(innerKey(A), Buffer.from("garbage"));
    const remove = store.delete.bind(store);
    store.delete = async (...args) => {
      const whole = Buffer.concat([digestOf(ROOT).bytes, encodeDirectory(A).bytes]);
      await store.put(innerKey(A), whole);
      await remove(...args);
    };
    expect(await service.get(digestOf(A))).toBeUndefined();
    await expectWhole(service, A);
  });

  // An upload that fails in the same turn as another succeeds, at any distance in microtasks.
  it.each(Array.from({ length: 16 }, (_, i) => i))(
    "fails with an upload that fails %i microtasks after another has succeeded",
    async (distance) => {
      const { store, service } = open();
      const putObject = store.put.bind(store);
      const leaves = ["one", "two"].map((name) => parent({ [name]: EMPTY }));
      const root = parent({ one: leaves[0]!, two: leaves[1]! });
      const go = Promise.withResolvers<void>();
      let waiting = 0;
      store.put = async (key, ...rest) => {
        const i = leaves.findIndex((leaf) => key === innerKey(leaf));
        if (i >= 0) {
          waiting += 1;
          if (waiting === 2) setImmediate(() => go.resolve());
          await go.promise;
        }
        for (let n = 0; i === 1 && n < distance; n++) await null;
        if (i === 1) throw new CastoreError("unavailable", "it fails on purpose");
        await putObject(key, ...rest);
      };
      await expect(put(service, [EMPTY, ...leaves, root])).rejects.toThrow("on purpose");
      expect(await service.get(digestOf(root))).toBeUndefined();
    },
  );

  it("reads no more of an object than a directory can have", async () => {
    const { store, service } = open();
    let bytes = 0;
    store.get = async (key) => {
      if (!key.startsWith("dirs-inner/")) return undefined;
      const endless = async function* () {
        for (;;) {
          bytes += 1024 * 1024;
          yield Buffer.alloc(1024 * 1024);
        }
      };
      return Object.assign(endless(), { version: "1" });
    };
    expect(await service.get(digestOf(A))).toBeUndefined();
    expect(bytes).toBe(2 * 33 * 1024 * 1024); // it is read twice
  });
});
