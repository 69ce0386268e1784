import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { AbortOptions } from "@tvix/castore";
import { LRUCache } from "lru-cache";
import { expectHashPart } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import { mergeSignatures } from "./merge-signatures.ts";
import { eachOf, PathInfoPage } from "./path-info-page.ts";
import type { ListPathInfosOptions, PathInfoService } from "./path-info-service.ts";

/** How many PathInfos are listed before other events get their turn. */
const PAGE_LENGTH = 500;

/** Stores PathInfos in memory. */
export class MemoryPathInfoService implements PathInfoService {
  readonly #pathInfos = new OrderedPathInfos();
  /** The keys in the order of their last use; `undefined` without a capacity. */
  readonly #used: LRUCache<string, true> | undefined;

  /**
   * @param options.capacity how many PathInfos are kept, at least 1: beyond that, the one that was used least recently
   *   is evicted. Default: all
   */
  constructor({ capacity }: { capacity?: number } = {}) {
    if (capacity === undefined) return;
    this.#used = new LRUCache({
      max: capacity,
      dispose: (_, key, reason) => {
        if (reason === "evict") this.#pathInfos.delete(key);
      },
    });
  }

  async get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    options?.signal?.throwIfAborted();
    expectHashPart(hashPart);
    const key = keyOf(hashPart);
    this.#used?.get(key);
    return this.#pathInfos.get(key);
  }

  async getMany(
    hashParts: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<(PathInfo | undefined)[]> {
    options?.signal?.throwIfAborted();
    return await Promise.all(hashParts.map((hashPart) => this.get(hashPart, options)));
  }

  async put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo> {
    options?.signal?.throwIfAborted();
    const key = keyOf(pathInfo.storePath.hashPart);
    const merged = mergeSignatures(this.#pathInfos.get(key), pathInfo);
    this.#pathInfos.set(key, merged);
    this.#used?.set(key, true);
    return merged;
  }

  list(options?: ListPathInfosOptions): AsyncIterable<PathInfo> {
    return eachOf(this.listPages(options), options?.signal);
  }

  async *listPages({ after, signal }: ListPathInfosOptions = {}): AsyncGenerator<PathInfoPage> {
    signal?.throwIfAborted();
    if (after !== undefined) expectHashPart(after);
    let page: PathInfo[] = [];
    for (const pathInfo of this.#pathInfos.after(after && keyOf(after))) {
      if (page.push(pathInfo) < PAGE_LENGTH) continue;
      yield PathInfoPage.of(page);
      page = [];
      await yieldToEvents();
      signal?.throwIfAborted();
    }
    if (page.length > 0) yield PathInfoPage.of(page);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#pathInfos.clear();
    this.#used?.clear();
  }
}

/** Caches PathInfos in memory. Evicts the least recently used. */
export class LruPathInfoService extends MemoryPathInfoService {
  /** @param options.capacity how many PathInfos are kept, at least 1 */
  constructor({ capacity }: { capacity: number }) {
    super({ capacity });
  }
}

/** How many characters of a key name its bucket: with a million keys, a bucket has 244 of them. */
const PREFIX_LENGTH = 3;
const BUCKETS = 16 ** PREFIX_LENGTH;

/**
 * PathInfos by key, which are listed in the order of the keys from any place on. Hash parts are spread evenly, so the
 * first characters of the keys divide them into small buckets; a bucket is sorted when a listing comes to it.
 */
class OrderedPathInfos {
  readonly #buckets: (Map<string, PathInfo> | undefined)[] = new Array(BUCKETS);

  get(key: string): PathInfo | undefined {
    return this.#buckets[bucketOf(key)]?.get(key);
  }

  set(key: string, pathInfo: PathInfo): void {
    const index = bucketOf(key);
    const bucket = this.#buckets[index] ?? new Map();
    this.#buckets[index] = bucket;
    bucket.set(key, pathInfo);
  }

  delete(key: string): void {
    this.#buckets[bucketOf(key)]?.delete(key);
  }

  clear(): void {
    this.#buckets.fill(undefined);
  }

  /** Lists the PathInfos whose keys sort after one, or all of them. */
  *after(key = ""): Generator<PathInfo> {
    for (let index = key === "" ? 0 : bucketOf(key); index < BUCKETS; index++) {
      const bucket = this.#buckets[index];
      if (bucket === undefined) continue;
      const keys = [...bucket.keys()].filter((other) => other > key).sort();
      for (const key of keys) {
        const pathInfo = bucket.get(key);
        if (pathInfo !== undefined) yield pathInfo; // unless it was evicted meanwhile
      }
    }
  }
}

function bucketOf(key: string): number {
  return Number.parseInt(key.slice(0, PREFIX_LENGTH), 16);
}

function keyOf(hashPart: Uint8Array): string {
  return Buffer.from(hashPart).toString("hex");
}
