import {
  type AbortOptions,
  CastoreError,
  compareBytes,
  SingleFlight,
  type TierOptions,
  Tiers,
  unlessAborted,
} from "@tvix/castore";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { expectHashPart } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import type { PathInfoService } from "./path-info-service.ts";

/**
 * PathInfos in two halves: a near one, such as a file, and a far one, such as a binary cache.
 *
 * What only the far half has is kept in the near one when it is asked for or listed; it is asked once however many
 * ask for the same at the same time. A near half that fails is warned of and fails no call.
 *
 * Disposing of it gives up what the far half is being asked; the halves stay open.
 */
export class CachePathInfoService implements PathInfoService {
  readonly #tiers: Tiers<PathInfoService>;
  readonly #asking = new SingleFlight<PathInfo | undefined>();
  readonly #closing = new AbortController();

  constructor(options: TierOptions<PathInfoService>) {
    this.#tiers = new Tiers("CachePathInfoService", options);
  }

  async get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    options?.signal?.throwIfAborted();
    expectHashPart(hashPart);
    const hash = encodeNixbase32(hashPart);
    const near = await this.#tiers.tryNear(
      `look up ${hash} in`,
      (near) => near.get(hashPart, options),
      options,
    );
    if (near !== undefined) return near;
    const asked = this.#asking.run(hash, async () => {
      const found = await this.#tiers.far.get(hashPart, { signal: this.#closing.signal });
      if (found !== undefined) await this.#keep(found);
      return found;
    });
    return await unlessAborted(asked, options?.signal);
  }

  async put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo> {
    options?.signal?.throwIfAborted();
    const { near, far, mode } = this.#tiers;
    if (mode === "near-only") return await near.put(pathInfo, options);
    const stored = await far.put(pathInfo, options);
    if (mode === "write-through" || (await this.#isNear(stored))) await this.#keep(stored);
    return stored;
  }

  /** Those of both halves; where both have one, it is that of the far half. */
  async *list(options?: AbortOptions): AsyncGenerator<PathInfo> {
    options?.signal?.throwIfAborted();
    await using near = new Listing(this.#listNear(options));
    await using far = new Listing(this.#tiers.far.list(options));
    let [nearest, farthest] = [await near.next(), await far.next()];
    for (;;) {
      options?.signal?.throwIfAborted();
      const order = compareListed(nearest, farthest);
      if (order === undefined) return;
      const next = order < 0 ? nearest! : farthest!;
      if (order > 0) await this.#keep(next);
      yield next;
      if (order <= 0) nearest = await near.next();
      if (order >= 0) farthest = await far.next();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new CastoreError("aborted", "Cannot go on: the service is disposed of"));
    await this.#asking.settled();
  }

  /** Whether the near half has a PathInfo of that store path, maybe of another content. */
  async #isNear({ storePath }: PathInfo): Promise<boolean> {
    const found = this.#tiers.tryNear(`look up ${storePath} in`, (near) =>
      near.get(storePath.hashPart),
    );
    return (await found) !== undefined;
  }

  async #keep(pathInfo: PathInfo): Promise<void> {
    await this.#tiers.tryNear(`keep ${pathInfo.storePath} in`, (near) => near.put(pathInfo));
  }

  /** The listing of the near half; as far as it gets, if that fails. */
  async *#listNear(options?: AbortOptions): AsyncGenerator<PathInfo> {
    try {
      yield* this.#tiers.near.list(options);
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
