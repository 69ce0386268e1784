import { collectBytes, type ObjectStore } from "@tvix/castore";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { seededBytes } from "./trees.ts";

/** What {@link objectStoreSuite} is told. */
export interface ObjectStoreSuiteOptions {
  /** Gives two stores on one fresh, empty place. The suite disposes of the first before the second. */
  createPair: () => Promise<readonly [ObjectStore, ObjectStore]>;
  /** Gives a store on a bucket that does not exist, and its name. Default: stores make what they need. */
  createMissing?: () => Promise<readonly [ObjectStore, bucket: string]>;
}

/** Longer than a part of an upload of any store. */
const LARGE = seededBytes("an object of several parts", 20_000_000);

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
  { createPair, createMissing }: ObjectStoreSuiteOptions,
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

    async function upload(
      key: string,
      data: Uint8Array,
      ifAbsent = false,
      to = store,
    ): Promise<boolean> {
      await using upload = to.openUpload(key, { ifAbsent });
      for (let at = 0; at < data.length; at += 3_000_000) {
        await upload.write(data.subarray(at, at + 3_000_000));
      }
      return await upload.close();
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
        expect(await store.put("a/b-1.x/C_d", data)).toBe(true);
        expect(Buffer.compare((await read(other, "a/b-1.x/C_d"))!, data)).toBe(0);
        expect(await other.head("a/b-1.x/C_d")).toEqual({ key: "a/b-1.x/C_d", size: data.length });
      });

      it("takes it piece by piece", async () => {
        expect(await upload("k", data)).toBe(true);
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

    it("replaces an object, or leaves it alone when told to", async () => {
      expect(await store.put("k", Buffer.from("one"), { ifAbsent: true })).toBe(true);
      expect(await store.put("k", Buffer.from("two"), { ifAbsent: true })).toBe(false);
      expect(await upload("k", Buffer.from("two"), true)).toBe(false);
      expect(Buffer.from((await read(store, "k"))!).toString()).toBe("one");
      expect(await store.put("k", Buffer.from("three"))).toBe(true);
      expect(Buffer.from((await read(other, "k"))!).toString()).toBe("three");
    });

    it("lets one of many win who store the same key if it is absent", async () => {
      const racers = Array.from({ length: 32 }, (_, i) => i);
      const won = await Promise.all(
        racers.map((i) =>
          (i % 2 ? store : other).put("k", Buffer.from(`racer ${i}`), { ifAbsent: true }),
        ),
      );
      expect(won.filter((stored) => stored)).toHaveLength(1);
      const found = Buffer.from((await read(store, "k"))!).toString();
      expect(found).toBe(`racer ${won.indexOf(true)}`);
    });

    it("takes the same object from many at the same time", async () => {
      const data = LARGE.subarray(0, 100_000);
      const puts = Array.from({ length: 16 }, (_, i) => (i % 2 ? store : other).put("k", data));
      expect(await Promise.all(puts)).not.toContain(false);
      expect(Buffer.compare((await read(store, "k"))!, data)).toBe(0);
    });

    it.each([false, true])(
      "takes the same object from many uploads at the same time (if it is absent: %s)",
      async (ifAbsent) => {
        const data = LARGE.subarray(0, 100_000);
        const uploads = Array.from({ length: 16 }, (_, i) =>
          upload("k", data, ifAbsent, i % 2 ? store : other),
        );
        const stored = (await Promise.all(uploads)).filter((isStored) => isStored);
        expect(stored.length).toBe(ifAbsent ? 1 : uploads.length);
        expect(Buffer.compare((await read(store, "k"))!, data)).toBe(0);
      },
    );

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

    it.each([["dropped"], ["cancelled"]])("leaves nothing of an upload that is %s", async (how) => {
      const controller = new AbortController();
      const reason = new Error("enough");
      {
        await using upload = store.openUpload("k", { signal: controller.signal });
        await upload.write(LARGE.subarray(0, 10_000_000));
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
      expect([await upload.close(), await upload.close()]).toEqual([true, true]);
      await expect(upload.write(Buffer.from("y"))).rejects.toThrow();
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

    it.runIf(createMissing)(
      "says that there is no such bucket, whatever it is asked for",
      async () => {
        const [absent, bucket] = await createMissing!();
        await using missing = absent;
        const calls: readonly (() => Promise<unknown>)[] = [
          () => missing.head("k"),
          () => missing.get("k"),
          () => missing.get("k", { offset: 1, length: 0 }),
          () => keysOf(missing, ""),
          () => missing.put("k", Buffer.from("x")),
          () => missing.put("k", Buffer.from("x"), { ifAbsent: true }),
          () => upload("k", Buffer.from("x"), false, missing),
          () => upload("k", LARGE, false, missing),
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
      },
    );

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
