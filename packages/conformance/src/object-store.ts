import { collectBytes, type ObjectStore } from "@tvix/castore";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { seededBytes } from "./trees.ts";

/** What {@link objectStoreSuite} is told. */
export interface ObjectStoreSuiteOptions {
  /** Gives two stores on one fresh, empty place. The suite disposes of the first before the second. */
  createPair: () => Promise<readonly [ObjectStore, ObjectStore]>;
  /** Gives a store on a bucket that does not exist, and its name. Default: stores make what they need. */
  createMissing?: () => Promise<readonly [ObjectStore, bucket: string]>;
  /** Whether a version can be deleted. Default: yes. */
  deletesVersions?: boolean;
}

/** Longer than a part of an upload of any store: 15 million bytes, the same 100,000 again and again. */
const LARGE = new Uint8Array(Buffer.alloc(15_000_000, seededBytes("an object", 100_000)));

const CONTENTS: readonly (readonly [string, Uint8Array])[] = [
  ["no bytes", new Uint8Array(0)],
  ["a byte", new Uint8Array([7])],
  ["a megabyte and a byte", LARGE.subarray(0, 1024 * 1024 + 1)],
  ["several parts", LARGE],
];

async function read(
  store: ObjectStore,
  key: string,
  range?: { offset?: number; length?: number },
): Promise<Uint8Array | undefined> {
  const found = await store.get(key, range);
  return found && (await collectBytes(found));
}

async function keysOf(store: ObjectStore, ...args: Parameters<ObjectStore["list"]>) {
  const keys: string[] = [];
  for await (const { key } of store.list(...args)) keys.push(key);
  return keys;
}

const invalid = expect.objectContaining({ name: "CastoreError", code: "invalid_argument" });

/** Tests that a store keeps the contract of `ObjectStore`. */
export function objectStoreSuite(
  name: string,
  { createPair, createMissing, deletesVersions = true }: ObjectStoreSuiteOptions,
): void {
  describe(`${name} is an ObjectStore`, () => {
    let store: ObjectStore;
    let other: ObjectStore;

    beforeEach(async () => {
      [store, other] = await createPair();
    });

    afterEach(async () => {
      await store[Symbol.asyncDispose]();
      await other[Symbol.asyncDispose]();
    });

    async function upload(key: string, data: Uint8Array, to = store): Promise<void> {
      await using upload = to.openUpload(key);
      for (let at = 0; at < data.length; at += 3_000_000) {
        await upload.write(data.subarray(at, at + 3_000_000));
      }
      await upload.close();
    }

    it("has nothing that was never stored", async () => {
      expect(await store.get("a/b")).toBeUndefined();
      expect(await store.head("a/b")).toBeUndefined();
      expect(await store.get("a/b", { offset: 1, length: 0 })).toBeUndefined();
      expect(await keysOf(store, "")).toEqual([]);
      await store.delete("a/b");
    });

    describe.each(CONTENTS)("with an object of %s", (_, data) => {
      it("gives it back, to whoever opened the store", async () => {
        await store.put("a/b-1.x/C_d", data);
        expect(Buffer.compare((await read(other, "a/b-1.x/C_d"))!, data)).toBe(0);
        expect(await other.head("a/b-1.x/C_d")).toMatchObject({
          key: "a/b-1.x/C_d",
          size: data.length,
        });
      });

      it("takes it piece by piece", async () => {
        await upload("k", data);
        expect(Buffer.compare((await read(other, "k"))!, data)).toBe(0);
      });

      it("gives any range of it", async () => {
        await store.put("k", data);
        const { length } = data;
        const bounds = [0, 1, length >> 1, length - 1, length, length + 1].filter((n) => n >= 0);
        for (const offset of bounds) {
          for (const length of [0, 1, 1000, undefined]) {
            const found = await read(store, "k", {
              offset,
              ...(length !== undefined && { length }),
            });
            const expected = data.subarray(offset, length === undefined ? length : offset + length);
            expect(Buffer.compare(found!, expected)).toBe(0);
          }
        }
      });
    });

    it("stores and deletes one that need not outlive a power failure", async () => {
      const options = { isDurable: false };
      await store.put("a/k", Buffer.from("one"), options);
      expect(await read(other, "a/k")).toEqual(Buffer.from("one"));
      await other.delete("a/k", options);
      expect(await store.head("a/k")).toBeUndefined();
    });

    it("replaces an object", async () => {
      await store.put("k", Buffer.from("one"));
      await other.put("k", Buffer.from("two, longer"));
      expect(Buffer.from((await read(store, "k"))!).toString()).toBe("two, longer");
      await upload("k", Buffer.from("3"));
      expect(Buffer.from((await read(other, "k"))!).toString()).toBe("3");
    });

    it("takes the same object from many at the same time", async () => {
      const data = LARGE.subarray(0, 100_000);
      const racers = Array.from({ length: 16 }, (_, i) => (i % 2 ? store : other));
      await Promise.all(racers.map((racer) => racer.put("k", data)));
      expect(Buffer.compare((await read(store, "k"))!, data)).toBe(0);
    });

    it.each([100_000, 10_000_000])(
      "takes the same object of %i bytes from many uploads at the same time",
      async (length) => {
        const data = LARGE.subarray(0, length);
        const racers = Array.from({ length: 4 }, (_, i) => (i % 2 ? store : other));
        await Promise.all(racers.map((racer) => upload("k", data, racer)));
        expect(Buffer.compare((await read(store, "k"))!, data)).toBe(0);
      },
    );

    it("keeps what it was given, though the caller changes the bytes afterwards", async () => {
      const data = Buffer.alloc(9_000_000, 1);
      await store.put("put", data);
      await using upload = store.openUpload("uploaded");
      await upload.write(data);
      data.fill(2);
      await upload.write(data.subarray(0, 1));
      await upload.close();
      const expected = Buffer.alloc(9_000_000, 1);
      expect(Buffer.compare((await read(other, "put"))!, expected)).toBe(0);
      const uploaded = Buffer.concat([expected, Buffer.from([2])]);
      expect(Buffer.compare((await read(other, "uploaded"))!, uploaded)).toBe(0);
    });

    it("tells which of the objects it is that had a key one after the other", async () => {
      await store.put("k", Buffer.from("one"));
      const first = await store.head("k");
      expect((await other.get("k"))?.version).toBe(first?.version);
      expect(typeof first?.version).toBe("string");
      await other.put("k", Buffer.from("two"));
      expect((await store.head("k"))?.version).not.toBe(first?.version);
    });

    it("lists keys in order, by prefix, and from one on", async () => {
      const keys = ["a-b/c", "a.b", "a/b", "a/b-c", "a/c/d", "a0", "b/a", "b/b"];
      await Promise.all(keys.toReversed().map((key) => store.put(key, Buffer.from(key))));
      expect(await keysOf(other, "")).toEqual(keys.toSorted());
      expect(await keysOf(other, "a/")).toEqual(["a/b", "a/b-c", "a/c/d"]);
      expect(await keysOf(other, "a/b")).toEqual(["a/b", "a/b-c"]);
      expect(await keysOf(other, "a/c/")).toEqual(["a/c/d"]);
      expect(await keysOf(other, "c")).toEqual([]);
      expect(await keysOf(other, "", { after: "a/b" })).toEqual([
        "a/b-c",
        "a/c/d",
        "a0",
        "b/a",
        "b/b",
      ]);
      expect(await keysOf(other, "a/", { after: "a/b-c" })).toEqual(["a/c/d"]);
      expect(await keysOf(other, "b/", { after: "a" })).toEqual(["b/a", "b/b"]);
    });

    it("lists more than fit on a page", async () => {
      const keys = Array.from({ length: 1100 }, (_, i) => `k/${String(i).padStart(5, "0")}`);
      for (let at = 0; at < keys.length; at += 50) {
        const some = keys.slice(at, at + 50);
        await Promise.all(some.map((key) => store.put(key, Buffer.from("x"))));
      }
      expect(await keysOf(other, "k/")).toEqual(keys);
    });

    it("deletes an object", async () => {
      await store.put("a/b", Buffer.from("x"));
      await other.delete("a/b");
      expect(await store.get("a/b")).toBeUndefined();
      expect(await keysOf(store, "")).toEqual([]);
    });

    if (deletesVersions) {
      it("deletes an object only while it is of a version", async () => {
        await store.put("a/b", Buffer.from("damaged"));
        const { version } = (await store.head("a/b"))!;
        await other.put("a/b", Buffer.from("whole"));
        await store.delete("a/b", { version: version! });
        expect(Buffer.from((await read(store, "a/b"))!).toString()).toBe("whole");
        const { version: current } = (await other.get("a/b"))!;
        await store.delete("a/b", { version: current! });
        expect(await other.head("a/b")).toBeUndefined();
        await store.delete("a/b", { version: current! });
        expect(await keysOf(store, "")).toEqual([]);
      });
    }

    it.each([["dropped"], ["cancelled"]])("leaves nothing of an upload that is %s", async (how) => {
      const controller = new AbortController();
      const reason = new Error("enough");
      {
        await using upload = store.openUpload("k", { signal: controller.signal });
        await upload.write(LARGE.subarray(0, 9_000_000));
        if (how === "cancelled") {
          controller.abort(reason);
          await expect(upload.close()).rejects.toBe(reason);
        }
      }
      expect(await other.head("k")).toBeUndefined();
      expect(await keysOf(other, "")).toEqual([]);
    });

    it("closes an upload once", async () => {
      await using upload = store.openUpload("k");
      await upload.write(Buffer.from("x"));
      await Promise.all([upload.close(), upload.close()]);
      await upload.close();
      await expect(upload.write(Buffer.from("y"))).rejects.toThrow(invalid);
      expect(Buffer.from((await read(other, "k"))!).toString()).toBe("x");
    });

    it.each(["", "/", "a//b", "/a", "a/", ".", "a/../b", "a b", "ä", "a\0"])(
      "refuses the key %j",
      async (key) => {
        await expect(store.get(key)).rejects.toThrow(invalid);
        await expect(store.head(key)).rejects.toThrow(invalid);
        await expect(store.put(key, Buffer.from("x"))).rejects.toThrow(invalid);
        await expect(store.delete(key)).rejects.toThrow(invalid);
        expect(() => store.openUpload(key)).toThrow(invalid);
      },
    );

    it("rejects with the reason when it is cancelled before", async () => {
      const reason = new Error("enough");
      const options = { signal: AbortSignal.abort(reason) };
      await expect(store.get("k", options)).rejects.toBe(reason);
      await expect(store.head("k", options)).rejects.toBe(reason);
      await expect(store.put("k", Buffer.from("x"), options)).rejects.toBe(reason);
      await expect(keysOf(store, "", options)).rejects.toBe(reason);
      await expect(store.delete("k", options)).rejects.toBe(reason);
      expect(await other.head("k")).toBeUndefined();
    });

    it("gives an object as it was, or says that it was replaced while it was read", async () => {
      await store.put("k", LARGE);
      const replacement = LARGE.toReversed();
      const pieces: Uint8Array[] = [];
      const reading = (async () => {
        for await (const piece of (await store.get("k"))!) {
          pieces.push(Buffer.from(piece));
          if (pieces.length === 1) await other.put("k", replacement);
        }
      })();
      const failed = await reading.then(
        () => false,
        (error) => {
          expect(error).toMatchObject({ name: "CastoreError", code: "aborted" });
          return true;
        },
      );
      const found = Buffer.concat(pieces);
      expect(Buffer.compare(found, LARGE.subarray(0, found.length))).toBe(0);
      expect(found.length === LARGE.length).toBe(!failed);
      expect(Buffer.compare((await read(store, "k"))!, replacement)).toBe(0);
    });

    it("rejects with the reason when it is cancelled while an object is read", async () => {
      await store.put("k", LARGE);
      const controller = new AbortController();
      const reason = new Error("enough");
      let length = 0;
      const reading = (async () => {
        for await (const piece of (await store.get("k", { signal: controller.signal }))!) {
          length += piece.length;
          controller.abort(reason);
        }
      })();
      const error = await reading.catch((error) => error);
      expect(error).toBe(length === LARGE.length ? undefined : reason);
    });

    it("takes nothing more of an upload that is cancelled", async () => {
      const reason = new Error("enough");
      await using upload = store.openUpload("k", { signal: AbortSignal.abort(reason) });
      await expect(upload.write(Buffer.from("x"))).rejects.toBe(reason);
      await expect(upload.close()).rejects.toBe(reason);
      expect(await other.head("k")).toBeUndefined();
    });

    if (createMissing) {
      it("says that there is no such bucket, whatever it is asked for", async () => {
        const [absent, bucket] = await createMissing();
        await using missing = absent;
        const calls: readonly (() => Promise<unknown>)[] = [
          () => missing.head("k"),
          () => missing.get("k"),
          () => missing.get("k", { offset: 1, length: 0 }),
          () => keysOf(missing, ""),
          () => missing.put("k", Buffer.from("x")),
          () => upload("k", Buffer.from("x"), missing),
          () => upload("k", LARGE, missing),
          () => missing.delete("k"),
          () => missing.head("k"),
        ];
        for (const call of calls) {
          await expect(call()).rejects.toMatchObject({
            name: "CastoreError",
            code: "invalid_argument",
            message: expect.stringContaining(bucket),
          });
        }
      });
    }

    it("lets a reader end early", async () => {
      await store.put("k", LARGE);
      for (let i = 0; i < 20; i++) {
        for await (const data of (await store.get("k"))!) {
          expect(data.length).toBeGreaterThan(0);
          break;
        }
      }
      expect(await store.head("k")).toBeDefined();
    });
  });
}
