import {
  type AbortOptions,
  type CacheOptions,
  compareBytes,
  type Measured,
  OriginCache,
  SingleFlight,
  type StoreStatistics,
  unlessAborted,
} from "@tvix/castore";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { expectHashPart } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import { eachOf, PathInfoPage } from "./path-info-page.ts";
import type { ListPathInfosOptions, PathInfoService } from "./path-info-service.ts";

/** How many PathInfos are stored in the local store in the background at the same time, and how many others wait. */
const MAX_STORING = 64;
const MAX_WAITING = 4096;

/**
 * PathInfos in a local store in front of an origin, such as a binary cache.
 *
 * A PathInfo that comes from the origin, also in a listing, is stored in the local store in the background; the origin
 * is asked once for all who get the same one at the same time. While 4096 PathInfos wait, a further one is stored when
 * it is read again.
 *
 * Failures of the local store are warned of and fail no call, see {@link CacheOptions}. Disposing of the cache abandons
 * what is not stored within half a second; neither store is disposed of.
 */
export class CachePathInfoService implements PathInfoService, Measured {
  readonly #cache: OriginCache<PathInfoService>;
  readonly #asking = new SingleFlight<PathInfo | undefined>();
  /** PathInfos that wait to be stored, by hash part. */
  readonly #waiting = new Map<string, PathInfo>();
  /** How many loops take the next one that waits. */
  #storing = 0;
  /** The last write to the local store, by hash part: writes of one store path follow one another. */
  readonly #writing = new Map<string, Promise<void>>();

  constructor(options: CacheOptions<PathInfoService>) {
    this.#cache = new OriginCache("CachePathInfoService", options);
  }

  /** Returns how many items the local store had, and lacked. */
  async statistics(): Promise<StoreStatistics> {
    return this.#cache.statistics();
  }

  async get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    options?.signal?.throwIfAborted();
    expectHashPart(hashPart);
    const near = await this.#getNear(hashPart, options);
    this.#cache.count(near === undefined ? 0 : 1, near === undefined ? 1 : 0);
    if (near !== undefined) return near;
    const ask = async (signal: AbortSignal) => {
      const found = await this.#cache.far.get(hashPart, { signal });
      if (found !== undefined) this.#storeLater(found);
      return found;
    };
    return await this.#asking.run(encodeNixbase32(hashPart), ask, options);
  }

  async getMany(
    hashParts: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly (PathInfo | undefined)[]> {
    hashParts.forEach(expectHashPart);
    return await this.#cache.ask<Uint8Array, PathInfo | undefined>(
      "look up PathInfos in",
      hashParts,
      (store, hashParts, options) => store.getMany(hashParts, options),
      options,
      (_, found) => this.#storeLater(found!),
    );
  }

  async put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo> {
    options?.signal?.throwIfAborted();
    const { near, far, mode } = this.#cache;
    if (mode === "near-only") return await near.put(pathInfo, options);
    const stored = await far.put(pathInfo, options);
    const { hashPart } = stored.storePath;
    this.#waiting.delete(encodeNixbase32(hashPart)); // it is older
    const store = async () => {
      const isWanted = mode === "write-through" || (await this.#getNear(hashPart, options));
      if (isWanted) await this.#putNear(stored, options);
    };
    await unlessAborted(this.#inTurn(hashPart, store), options?.signal);
    return stored;
  }

  list(options?: ListPathInfosOptions): AsyncIterable<PathInfo> {
    return eachOf(this.listPages(options), options?.signal);
  }

  /** Lists the PathInfos of both stores; where both have one, it is that of the origin. */
  async *listPages(options?: ListPathInfosOptions): AsyncGenerator<PathInfoPage> {
    options?.signal?.throwIfAborted();
    if (options?.after !== undefined) expectHashPart(options.after);
    await using near = new Listing(this.#listNear(options));
    await using far = new Listing(this.#cache.far.listPages(options));
    let page: PathInfo[] = [];
    for (;;) {
      // What both have come with is merged without waiting for more of either.
      if (page.length > 0 && (near.isToBeAwaited || far.isToBeAwaited)) {
        yield PathInfoPage.of(page);
        page = [];
      }
      options?.signal?.throwIfAborted();
      if (near.isToBeAwaited) await near.fetch();
      if (far.isToBeAwaited) await far.fetch();
      const order = compareListed(near.next, far.next);
      if (order === undefined) return;
      const next = order < 0 ? near.next! : far.next!;
      if (order > 0) this.#storeLater(next);
      page.push(next);
      if (order <= 0) near.advance();
      if (order >= 0) far.advance();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cache[Symbol.asyncDispose]();
  }

  #getNear(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    const get = (near: PathInfoService, options: AbortOptions) => near.get(hashPart, options);
    return this.#cache.read(`look up ${encodeNixbase32(hashPart)} in`, get, options);
  }

  async #putNear(pathInfo: PathInfo, options?: AbortOptions): Promise<void> {
    const put = (near: PathInfoService, options: AbortOptions) => near.put(pathInfo, options);
    await this.#cache.write(`store ${pathInfo.storePath} in`, put, options);
  }

  /** Has a PathInfo of the origin stored in the local store in the background, unless too many wait. */
  #storeLater(pathInfo: PathInfo): void {
    const hash = encodeNixbase32(pathInfo.storePath.hashPart);
    if (this.#waiting.has(hash) || this.#waiting.size >= MAX_WAITING) return;
    this.#waiting.set(hash, pathInfo);
    if (this.#storing < MAX_STORING) this.#cache.inBackground(this.#storeWaiting());
  }

  async #storeWaiting(): Promise<void> {
    const options = { signal: this.#cache.closing };
    this.#storing += 1;
    try {
      for (const [hash, pathInfo] of this.#waiting) {
        this.#waiting.delete(hash);
        const { hashPart } = pathInfo.storePath;
        await this.#inTurn(hashPart, async () => {
          const found = await this.#getNear(hashPart, options);
          if (found === undefined) await this.#putNear(pathInfo, options); // else it is newer
        });
      }
    } finally {
      this.#storing -= 1;
    }
  }

  /** Does something when every earlier write of the same hash part has ended. */
  #inTurn(hashPart: Uint8Array, action: () => Promise<void>): Promise<void> {
    const hash = encodeNixbase32(hashPart);
    const before = this.#writing.get(hash) ?? Promise.resolve();
    const over = before.then(action, action).finally(() => {
      if (this.#writing.get(hash) === over) this.#writing.delete(hash);
    });
    this.#writing.set(hash, over);
    return over;
  }

  /** Lists the PathInfos of the local store, as far as it gets. */
  async *#listNear(options?: ListPathInfosOptions): AsyncGenerator<PathInfoPage> {
    const after = options?.after;
    const open = (near: PathInfoService, options: AbortOptions) =>
      near.listPages({ ...options, after });
    try {
      yield* this.#cache.stream("list", open, options);
    } catch {
      options?.signal?.throwIfAborted(); // else it was warned of
    }
  }
}

/** A listing, one by one: `next` is the next one, as long as it need not be waited for. */
class Listing implements AsyncDisposable {
  next: PathInfo | undefined;
  readonly #pages: AsyncIterator<PathInfoPage>;
  #page: Iterator<PathInfo> | undefined;
  #isOver = false;

  constructor(pages: AsyncIterable<PathInfoPage>) {
    this.#pages = pages[Symbol.asyncIterator]();
  }

  /** Whether there may be a next one that is still to be fetched. */
  get isToBeAwaited(): boolean {
    return this.next === undefined && !this.#isOver;
  }

  async fetch(): Promise<void> {
    const { done, value } = await this.#pages.next();
    if (done) {
      this.#isOver = true;
      return;
    }
    this.#page = value[Symbol.iterator]();
    this.advance();
  }

  advance(): void {
    this.next = this.#page?.next().value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pages.return?.();
  }
}

/** Negative if the first comes first, positive if the second does; `undefined` if there is neither. */
function compareListed(a: PathInfo | undefined, b: PathInfo | undefined): number | undefined {
  if (a === undefined) return b === undefined ? undefined : 1;
  if (b === undefined) return -1;
  return compareBytes(a.storePath.hashPart, b.storePath.hashPart);
}
