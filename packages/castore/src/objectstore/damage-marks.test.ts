import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { CastoreError } from "../model/errors.ts";
import { DamageMarks } from "./damage-marks.ts";
import { MemoryObjectStore } from "./memory.ts";
import type { ListObjectsOptions, ObjectMeta } from "./object-store.ts";

const KEY = "chunks/b3/0123/some-chunk";
const OTHER = "blobs/b3/4567/some-blob";
const HALF_A_MINUTE = 30_000;

/** A store that counts how often it is asked for something, and may refuse what is not reading. */
class WatchedObjectStore extends MemoryObjectStore {
  lists = 0;
  heads = 0;
  refuses = false;

  override async head(...args: Parameters<MemoryObjectStore["head"]>) {
    this.heads += 1;
    return await super.head(...args);
  }

  override async put(...args: Parameters<MemoryObjectStore["put"]>): Promise<void> {
    if (this.refuses) throw new CastoreError("unimplemented", "it is only read");
    await super.put(...args);
  }

  override async delete(...args: Parameters<MemoryObjectStore["delete"]>): Promise<void> {
    if (this.refuses) throw new CastoreError("unimplemented", "it is only read");
    await super.delete(...args);
  }

  override list(prefix: string, options?: ListObjectsOptions): AsyncGenerator<ObjectMeta> {
    this.lists += 1;
    if (this.refuses) throw new CastoreError("unimplemented", "it is only read");
    return super.list(prefix, options);
  }
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["performance"] });
});

afterEach(() => {
  vi.useRealTimers();
});

describe("marks of damage", () => {
  it("are seen by others, until one of them removes the mark", async () => {
    const store = new MemoryObjectStore();
    const [one, other] = [new DamageMarks(store), new DamageMarks(store)];
    await one.mark(KEY);
    expect([one.isKnown(KEY), other.isKnown(KEY)]).toEqual([true, false]);
    expect([await one.has(KEY), await other.has(KEY)]).toEqual([true, true]);
    expect([await one.keys(), await other.keys()]).toEqual([[KEY], [KEY]]);
    expect([await one.has(OTHER), await other.has(OTHER)]).toEqual([false, false]);
    await other.clear(KEY);
    expect([await one.has(KEY), await other.has(KEY)]).toEqual([false, false]);
    expect(await Array.fromAsync(store.list(""))).toEqual([]);
  });

  it("are seen half a minute later by those who have asked before", async () => {
    const store = new MemoryObjectStore();
    const [one, other] = [new DamageMarks(store), new DamageMarks(store)];
    await other.has(KEY);
    await one.mark(KEY);
    vi.advanceTimersByTime(HALF_A_MINUTE);
    expect(await other.has(KEY)).toBe(true);
    await one.clear(KEY);
    vi.advanceTimersByTime(HALF_A_MINUTE);
    expect(await other.keys()).toEqual([]);
  });

  it("take one list in half a minute, and nothing else for what is not marked", async () => {
    const store = new WatchedObjectStore();
    const marks = new DamageMarks(store);
    await marks.mark(OTHER);
    const ask = () => Promise.all(Array.from({ length: 100 }, () => marks.has(KEY)));
    for (let i = 0; i < 3; i++) await ask();
    expect([store.lists, store.heads]).toEqual([1, 0]);
    vi.advanceTimersByTime(HALF_A_MINUTE);
    await ask();
    expect([store.lists, store.heads]).toEqual([2, 0]);
  });

  it("are kept that were made while others were listed", async () => {
    const store = new MemoryObjectStore();
    const marks = new DamageMarks(store);
    await marks.mark(OTHER);
    const list = store.list.bind(store);
    store.list = async function* (prefix) {
      const found = await Array.fromAsync(list(prefix));
      await marks.mark(KEY);
      yield* found;
    };
    expect((await marks.keys()).toSorted()).toEqual([OTHER, KEY]);
  });

  it("are kept in memory where the store can only be read", async () => {
    const store = new WatchedObjectStore();
    const marks = new DamageMarks(store);
    store.refuses = true;
    expect(await marks.has(KEY)).toBe(false);
    await marks.mark(KEY);
    for (let i = 0; i < 3; i++) {
      expect([await marks.has(KEY), await marks.has(OTHER)]).toEqual([true, false]);
      vi.advanceTimersByTime(HALF_A_MINUTE);
    }
    await marks.clear(KEY);
    expect(await marks.has(KEY)).toBe(false);
  });

  it("are not known while the store cannot be reached, which is told", async () => {
    const store = new MemoryObjectStore();
    const marks = new DamageMarks(store);
    store.list = () => {
      throw new CastoreError("unavailable", "it is gone");
    };
    await expect(marks.has(KEY)).rejects.toMatchObject({ code: "unavailable" });
    await marks.mark(KEY);
    expect(marks.isKnown(KEY)).toBe(true);
  });
});
