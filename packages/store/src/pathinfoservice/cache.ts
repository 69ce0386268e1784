import {
  type AbortOptions,
  compareBytes,
  SingleFlight,
  type TierOptions,
  Tiers,
  unlessAborted,
} from "@tvix/castore";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { expectHashPart } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import type { ListPathInfosOptions, PathInfoService } from "./path-info-service.ts";

/** How many PathInfos are stored in the near half at the same time, for nobody who waits. */
const MAX_KEEPERS = 64;

/** How many others wait for that. */
const MAX_WAITING = 4096;

/**
 * PathInfos in two halves: a near one, such as a file, and a far one, such as a binary cache.
 *
 * What only the far half has is kept in the near one when it is asked for or listed; it is asked once however many
 * ask for the same at the same time. Nobody waits for it to be kept. 4096 PathInfos wait for that at most; what comes
 * beyond is kept when it is asked for or listed again.
 *
 * A near half that fails is warned of and fails no call. Nor does one that is silent, see
 * {@link TierOptions.nearReadTimeoutMs}.
 *
 * Disposing of it gives up what the far half is being asked, and what is not kept within half a second; the halves stay
 * open.
 */
export class CachePathInfoService implements PathInfoService {
  readonly #tiers: Tiers<PathInfoService>;
  readonly #asking = new SingleFlight<PathInfo | undefined>();
  /** What is to be kept, by hash part. */
  readonly #waiting = new Map<string, PathInfo>();
  #keepers = 0;
  /** What is done to the near half, by hash part: of one store path, one after the other. */
  readonly #storing = new Map<string, Promise<void>>();

  constructor(options: TierOptions<PathInfoService>) {
    this.#tiers = new Tiers("CachePathInfoService", options);
  }

  async get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    options?.signal?.throwIfAborted();
    expectHashPart(hashPart);
    const near = await this.#getNear(hashPart, options);
    if (near !== undefined) return near;
    const ask = async (signal: AbortSignal) => {
      const signals = [signal, this.#tiers.closing];
      const found = await this.#tiers.far.get(hashPart, { signal: AbortSignal.any(signals) });
      if (found !== undefined) this.#keep(found);
      return found;
    };
    return await this.#asking.run(encodeNixbase32(hashPart), ask, options);
  }

  async getMany(
    hashParts: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly (PathInfo | undefined)[]> {
    options?.signal?.throwIfAborted();
    hashParts.forEach(expectHashPart);
    const ask = (near: PathInfoService, options: AbortOptions) => near.getMany(hashParts, options);
    const near = (await this.#tiers.tryNear("look up PathInfos in", ask, options)) ?? [];
    const missing = hashParts.filter((_, i) => near[i] === undefined);
    if (missing.length === 0) return near;
    const far = (await this.#tiers.far.getMany(missing, options)).values();
    return hashParts.map((_, i) => {
      if (near[i] !== undefined) return near[i];
      const found = far.next().value;
      if (found !== undefined) this.#keep(found);
      return found;
    });
  }

  async put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo> {
    options?.signal?.throwIfAborted();
    const { near, far, mode } = this.#tiers;
    if (mode === "near-only") return await near.put(pathInfo, options);
    const stored = await far.put(pathInfo, options);
    const { hashPart } = stored.storePath;
    this.#waiting.delete(encodeNixbase32(hashPart)); // it is older
    const store = async () => {
      const isWanted = mode === "write-through" || (await this.#getNear(hashPart, options));
      if (isWanted) await this.#putNear(stored, options);
    };
    await unlessAborted(this.#oneByOne(hashPart, store), options?.signal);
    return stored;
  }

  /** Those of both halves; where both have one, it is that of the far half. */
  async *list(options?: ListPathInfosOptions): AsyncGenerator<PathInfo> {
    options?.signal?.throwIfAborted();
    if (options?.after !== undefined) expectHashPart(options.after);
    await using near = new Listing(this.#listNear(options));
    await using far = new Listing(this.#tiers.far.list(options));
    let [nearest, farthest] = [await near.next(), await far.next()];
    for (;;) {
      options?.signal?.throwIfAborted();
      const order = compareListed(nearest, farthest);
      if (order === undefined) return;
      const next = order < 0 ? nearest! : farthest!;
      if (order > 0) this.#keep(next);
      yield next;
      if (order <= 0) nearest = await near.next();
      if (order >= 0) farthest = await far.next();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tiers[Symbol.asyncDispose]();
  }

  async #getNear(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    const ask = (near: PathInfoService, options: AbortOptions) => near.get(hashPart, options);
    return await this.#tiers.tryNear(`look up ${encodeNixbase32(hashPart)} in`, ask, options);
  }

  async #putNear(pathInfo: PathInfo, options?: AbortOptions): Promise<void> {
    const store = (near: PathInfoService, options: AbortOptions) => near.put(pathInfo, options);
    await this.#tiers.storeNear(`keep ${pathInfo.storePath} in`, store, options);
  }

  /** Has a PathInfo of the far half stored in the near one, for nobody who waits. */
  #keep(pathInfo: PathInfo): void {
    const hash = encodeNixbase32(pathInfo.storePath.hashPart);
    const hasRoom = this.#waiting.size < MAX_WAITING || this.#waiting.has(hash);
    if (!hasRoom || this.#tiers.writing.isSilent) return;
    this.#waiting.set(hash, pathInfo);
    if (this.#keepers < MAX_KEEPERS) this.#tiers.inBackground(this.#keepWaiting());
  }

  async #keepWaiting(): Promise<void> {
    const options = { signal: this.#tiers.closing };
    this.#keepers += 1;
    try {
      for (const [hash, pathInfo] of this.#waiting) {
        this.#waiting.delete(hash);
        const { hashPart } = pathInfo.storePath;
        await this.#oneByOne(hashPart, async () => {
          // What was put meanwhile is newer.
          const found = await this.#getNear(hashPart, options);
          if (found === undefined) await this.#putNear(pathInfo, options);
        });
      }
    } finally {
      this.#keepers -= 1;
    }
  }

  /** Does something when everything else with the same hash part is over. */
  #oneByOne(hashPart: Uint8Array, action: () => Promise<void>): Promise<void> {
    const hash = encodeNixbase32(hashPart);
    const before = this.#storing.get(hash) ?? Promise.resolve();
    const over = before.then(action, action).finally(() => {
      if (this.#storing.get(hash) === over) this.#storing.delete(hash);
    });
    this.#storing.set(hash, over);
    return over;
  }

  /** The listing of the near half; as far as it gets, if that fails. */
  async *#listNear(options?: ListPathInfosOptions): AsyncGenerator<PathInfo> {
    const open = async (near: PathInfoService, { signal }: AbortOptions) =>
      near.list({ after: options?.after, ...(signal && { signal }) });
    const stream = await this.#tiers.openNear("list", open, options);
    try {
      yield* stream ?? [];
    } catch (error) {
      options?.signal?.throwIfAborted();
      this.#tiers.warn("list", error);
    }
  }
}

/** A listing, one by one. */
class Listing implements AsyncDisposable {
  readonly #iterator: AsyncIterator<PathInfo>;

  constructor(list: AsyncIterable<PathInfo>) {
    this.#iterator = list[Symbol.asyncIterator]();
  }

  async next(): Promise<PathInfo | undefined> {
    const { done, value } = await this.#iterator.next();
    return done ? undefined : value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#iterator.return?.();
  }
}

/** Negative if the first comes first, positive if the second does; `undefined` if there is neither. */
function compareListed(a: PathInfo | undefined, b: PathInfo | undefined): number | undefined {
  if (a === undefined) return b === undefined ? undefined : 1;
  if (b === undefined) return -1;
  return compareBytes(a.storePath.hashPart, b.storePath.hashPart);
}
