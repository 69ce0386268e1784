import { hasCode, lruCache, SingleFlight } from "@tvix/castore";
import { encodeNixbase32, type NarInfo, StoreError, type VerifyingKey } from "@tvix/store";
import { BinaryCache } from "@tvix/store/binary-cache";
import { LRUCache } from "lru-cache";

/** A binary cache that is asked for store paths that are not here. */
export interface UpstreamOptions {
  /** URL of the cache, of `http:` or `https:`. */
  baseUrl: string;
  /**
   * Keys of which one has to have signed each narinfo, unless its path is content-addressed. With an empty list nobody
   * is trusted. Default: narinfos need no signature.
   */
  publicKeys?: readonly VerifyingKey[] | undefined;
  /** Upstreams with the lowest are asked first, those with the same one at once. Default: 40. */
  priority?: number | undefined;
  /** How long it may take to connect, and to answer a request for a narinfo, in milliseconds. Default: 5,000. */
  timeoutMs?: number | undefined;
  /** Path of a file with an access token. Default: none. */
  tokenFile?: string | undefined;
}

/** Options of {@link Upstreams}. */
export interface UpstreamsOptions {
  caches: readonly UpstreamOptions[];
  /** How long the absence of a store path is remembered, in milliseconds. Default: 5 minutes. */
  absentTtlMs?: number | undefined;
  /** How long the circuit breaker of an upstream stays open at first, in milliseconds. Default: 5,000. */
  restMs?: number | undefined;
  /** Called when an upstream goes down, and for each answer of one that is not valid. */
  onTrouble?: ((message: string) => void) | undefined;
}

/** A narinfo, and the cache that has its NAR. */
export interface Found {
  readonly narInfo: NarInfo;
  readonly cache: BinaryCache;
}

const PRIORITY = 40;
const TIMEOUT_MS = 5_000;
/** How long a server may be silent while it sends a NAR, in milliseconds, unless connecting may take longer. */
const NAR_TIMEOUT_MS = 15_000;
/** A connection that was kept open may have been closed meanwhile. */
const NARINFO_ATTEMPTS = 2;

const ABSENT_TTL_MS = 5 * 60 * 1000;
const FOUND_TTL_MS = 60 * 60 * 1000;
/** How many absent store paths are remembered. */
const MAX_ABSENT = 65_536;
/** How many characters of narinfos are remembered. Parsed, they take some times as many bytes. */
const MAX_FOUND_LENGTH = 8 * 1024 * 1024;

/**
 * Finds store paths in other binary caches.
 *
 * Those of one priority are asked at once, and the first valid narinfo is taken; the next priority is asked when none of
 * them has it. An upstream whose circuit breaker is open counts as having nothing: nobody waits for it, and nothing is
 * remembered as absent meanwhile. An answer that is not valid, such as one without a trusted signature, counts as
 * none.
 */
export class Upstreams implements AsyncDisposable {
  /** By priority, the lowest first. */
  readonly #ranks: readonly (readonly BinaryCache[])[];
  readonly #onTrouble: (message: string) => void;
  readonly #found = new LRUCache<string, Found>({
    maxSize: MAX_FOUND_LENGTH,
    ttl: FOUND_TTL_MS,
    sizeCalculation: ({ narInfo }) => narInfo.toString().length,
  });
  readonly #absent: LRUCache<string, true>;
  /** Hash parts with the names of upstreams whose NAR was wrong. */
  readonly #rejected: LRUCache<string, true>;
  readonly #asking = new SingleFlight<Found | undefined>();
  readonly #down = new Set<BinaryCache>();

  /** @throws CastoreError `invalid_argument` if the proxy that the environment names is not one of HTTP */
  constructor(options: UpstreamsOptions) {
    const { caches, absentTtlMs = ABSENT_TTL_MS, restMs, onTrouble = () => undefined } = options;
    const priorityOf = ({ priority = PRIORITY }: UpstreamOptions) => priority;
    const priorities = [...new Set(caches.map(priorityOf))].toSorted((a, b) => a - b);
    this.#ranks = priorities.map((priority) =>
      caches.filter((one) => priorityOf(one) === priority).map((one) => openCache(one, restMs)),
    );
    const ttlMs = Math.max(absentTtlMs, 1); // without end, to the library, if it is 0
    this.#absent = lruCache(MAX_ABSENT, { ttlMs });
    this.#rejected = lruCache(MAX_ABSENT, { ttlMs });
    this.#onTrouble = onTrouble;
  }

  /**
   * Finds a store path by its hash part in nixbase32.
   *
   * @returns `undefined` if no upstream has it
   * @throws StoreError `unavailable` if an upstream that may have it failed, and is to be asked again
   */
  async find(hash: string, signal: AbortSignal): Promise<Found | undefined> {
    if (this.#absent.has(hash)) return undefined;
    const known = this.#found.get(hash);
    if (known !== undefined) return known;
    // It ends soon, and cancelling requests would close their connections.
    return await this.#asking.run(hash, () => this.#askAll(hash), { signal });
  }

  /** Iterates over the upstreams that have a certain NAR of a store path: the one that was found first, then others. */
  async *having(
    hash: string,
    isWanted: (narInfo: NarInfo) => boolean,
    signal: AbortSignal,
  ): AsyncGenerator<Found> {
    const first = await this.find(hash, signal);
    if (first === undefined) return;
    if (isWanted(first.narInfo)) yield first;
    for (const cache of this.#ranks.flat()) {
      if (cache === first.cache) continue;
      const found = await this.#ask(cache, hash).catch(() => undefined);
      signal.throwIfAborted();
      if (found && isWanted(found.narInfo)) yield found;
    }
  }

  /** Has a store path count as absent from an upstream for a while, unless that was merely unavailable. */
  reject({ cache, narInfo }: Found, error: unknown): void {
    const hash = encodeNixbase32(narInfo.storePath.hashPart);
    this.#found.delete(hash);
    if (hasCode(error, "unavailable")) return;
    this.#rejected.set(`${hash} ${cache.name}`, true);
    this.#onTrouble((error as Error).message);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#ranks.flat().map((cache) => cache[Symbol.asyncDispose]()));
  }

  async #askAll(hash: string): Promise<Found | undefined> {
    let failure: unknown;
    let isSkipped = false;
    for (const rank of this.#ranks) {
      const asked = rank.map(async (cache) => {
        const found = await this.#ask(cache, hash);
        if (found !== undefined) return found;
        throw new StoreError("not_found", `There is no store path ${hash} in ${cache.name}`);
      });
      try {
        const found = await Promise.any(asked);
        this.#found.set(hash, found);
        return found;
      } catch (error) {
        const { errors } = error as AggregateError; // in the order of the caches
        rank.forEach((cache, i) => {
          if (!hasCode(errors[i], "unavailable")) return;
          if (cache.isDown) isSkipped = true;
          else failure ??= errors[i];
        });
      }
    }
    if (failure !== undefined) throw failure;
    if (!isSkipped) this.#absent.set(hash, true);
    return undefined;
  }

  /** @throws StoreError `unavailable` if it does not answer; any other code if its answer is not valid */
  async #ask(cache: BinaryCache, hash: string): Promise<Found | undefined> {
    if (this.#rejected.has(`${hash} ${cache.name}`)) return undefined;
    try {
      const narInfo = await cache.getNarInfo(hash);
      this.#down.delete(cache);
      if (narInfo === undefined) return undefined;
      if (narInfo.narSize <= Number.MAX_SAFE_INTEGER) return { narInfo, cache };
      throw new StoreError("data_loss", `Cannot use a NAR of ${narInfo.narSize} bytes`);
    } catch (error) {
      const isNew = !hasCode(error, "unavailable") || (cache.isDown && !this.#down.has(cache));
      if (cache.isDown) this.#down.add(cache);
      if (isNew) this.#onTrouble((error as Error).message);
      throw error;
    }
  }
}

function openCache(
  { baseUrl, publicKeys, timeoutMs = TIMEOUT_MS, tokenFile }: UpstreamOptions,
  restMs: number | undefined,
): BinaryCache {
  return new BinaryCache({
    ...{ baseUrl, publicKeys, restMs, tokenFile },
    timeoutMs: Math.max(timeoutMs, NAR_TIMEOUT_MS),
    narInfoLimits: { timeoutMs, attempts: NARINFO_ATTEMPTS },
    testsInBackground: true,
  });
}
