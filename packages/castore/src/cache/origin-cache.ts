import { inSteps, unlessAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { mapSome } from "../bytes/map-some.ts";
import { CastoreError } from "../model/errors.ts";
import type { StoreStatistics } from "../model/statistics.ts";
import { BrokenCircuitError, LocalPolicy } from "./local-policy.ts";

/**
 * Destination of writes. Reads always look in the local store first, then in the origin, and store what they found
 * there in the local store.
 *
 * - `write-through`: to both. A write succeeds once the origin has stored it; failures of the local store are warnings
 * - `near-only`: to the local store
 * - `far-only`: to the origin
 */
export type CacheMode = "write-through" | "near-only" | "far-only";

/** Every {@link CacheMode}. */
export const CACHE_MODES = ["write-through", "near-only", "far-only"] as const;

/** Options of a cache. Disposing of the cache disposes of neither store. */
export interface CacheOptions<T> {
  /** The local store. */
  near: T;
  /** The origin. */
  far: T;
  /** Default: `write-through`. */
  mode?: CacheMode | undefined;
  /** Called for each failure of the local store, which fails no call. Default: a process warning. */
  onWarning?: ((message: string) => void) | undefined;
  /**
   * Timeout of the local store for an answer, or the next item of a stream, in milliseconds. After a timeout, or if it
   * is unavailable, a circuit breaker sends all reads to the origin for the same time. Default: 5,000.
   */
  nearReadTimeoutMs?: number | undefined;
  /**
   * Timeout of one write to the local store, in milliseconds. After a timeout, or if it is unavailable or full, a
   * circuit breaker stops writes to it for the same time. Default: 30,000.
   */
  nearWriteTimeoutMs?: number | undefined;
}

/** Grace period for background writes when a cache is disposed of, in milliseconds. */
const GRACE_MS = 500;

/** Time before a disposal continues in the background, in milliseconds. */
const RELEASE_MS = 250;

/** A call of the local store, cancelled by the signal. */
export type LocalCall<T, R> = (near: T, options: { signal: AbortSignal }) => Promise<R>;

/** A local store in front of an origin: the part that the caches of all contracts share. */
export class OriginCache<T> implements AsyncDisposable {
  readonly near: T;
  readonly far: T;
  readonly mode: CacheMode;
  readonly #reading: LocalPolicy;
  readonly #writing: LocalPolicy;
  readonly #onWarning: (message: string) => void;
  readonly #closing = new AbortController();
  readonly #background = new Set<Promise<unknown>>();
  #hits = 0;
  #misses = 0;

  /** @param className prefix of process warnings */
  constructor(className: string, options: CacheOptions<T>) {
    const { near, far, mode, onWarning } = options;
    this.near = near;
    this.far = far;
    this.mode = mode ?? "write-through";
    this.#reading = new LocalPolicy(options.nearReadTimeoutMs ?? 5_000);
    this.#writing = new LocalPolicy(options.nearWriteTimeoutMs ?? 30_000);
    this.#onWarning = onWarning ?? ((message) => process.emitWarning(`${className}: ${message}`));
  }

  /** Counts items of which the local store had some, and lacked others. */
  count(hits: number, misses: number): void {
    this.#hits += hits;
    this.#misses += misses;
  }

  /** Returns how many items the local store had, and lacked. */
  statistics(): StoreStatistics {
    return { cacheHits: this.#hits, cacheMisses: this.#misses };
  }

  /** Cancels background work once the cache is disposed of. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /**
   * Reads from the local store.
   *
   * @param action the operation, for the warning: "read blob ... from"
   * @returns `undefined` after a failure or a timeout
   * @throws `signal.reason` when cancelled
   */
  read<R>(action: string, call: LocalCall<T, R>, options?: AbortOptions): Promise<R | undefined> {
    return this.#try(this.#reading, action, call, options);
  }

  /**
   * Writes to the local store.
   *
   * @returns whether it succeeded
   * @throws `signal.reason` when cancelled
   */
  async write(
    action: string,
    call: LocalCall<T, unknown>,
    options?: AbortOptions,
  ): Promise<boolean> {
    const done: LocalCall<T, true> = async (near, options) => {
      await call(near, options);
      return true;
    };
    return (await this.#try(this.#writing, action, done, options)) ?? false;
  }

  /**
   * Streams from the local store.
   *
   * @throws from iterating, the errors of the local store and its timeout, after a warning; `signal.reason` when
   *   cancelled
   */
  async *stream<R>(
    action: string,
    open: (near: T, options: { signal: AbortSignal }) => AsyncIterable<R>,
    options?: AbortOptions,
  ): AsyncGenerator<R> {
    const stop = new AbortController();
    const signal = options?.signal ? AbortSignal.any([stop.signal, options.signal]) : stop.signal;
    const wait = (next: () => Promise<IteratorResult<R>>) =>
      unlessAborted(this.#reading.execute(next), options?.signal);
    try {
      yield* inSteps(open(this.near, { signal }), wait);
    } catch (error) {
      options?.signal?.throwIfAborted();
      this.warn(action, error);
      throw error;
    } finally {
      stop.abort();
    }
  }

  /**
   * Looks up items in the local store, then in the origin those that the local store lacks.
   *
   * @param call looks up items in one of them. `undefined` and `false` mean absent
   * @param onFound receives each item that the origin has. Default: none
   * @returns the answers, in order
   * @throws the errors of the origin
   */
  async ask<Item extends {}, R>(
    action: string,
    items: readonly Item[],
    call: (store: T, items: readonly Item[], options?: AbortOptions) => Promise<readonly R[]>,
    options?: AbortOptions,
    onFound?: (item: Item, answer: R) => void,
  ): Promise<readonly R[]> {
    options?.signal?.throwIfAborted();
    const askNear: LocalCall<T, readonly R[]> = (near, options) => call(near, items, options);
    const near = (await this.read(action, askNear, options)) ?? [];
    const hits = items.filter((_, i) => near[i]).length;
    this.count(hits, items.length - hits);
    const far = await mapSome(
      items,
      (item, i) => (near[i] ? undefined : item),
      (missing) => call(this.far, missing, options),
    );
    for (const [i, answer] of far.entries()) if (answer) onFound?.(items[i]!, answer);
    return items.map((_, i) => near[i] || far[i]!);
  }

  /** Reports a failure of the local store, unless the circuit breaker refused the call. */
  warn(action: string, error: unknown): void {
    if (error instanceof BrokenCircuitError) return;
    const message = error instanceof Error ? error.message : String(error);
    this.#onWarning(`Cannot ${action} the local store: ${message}`);
  }

  /** Runs work in the background, which only disposal awaits. The work reports its own failures. */
  inBackground(task: Promise<unknown>): void {
    const over = task.catch(() => undefined).finally(() => this.#background.delete(over));
    this.#background.add(over);
  }

  /** Disposes of a resource, and continues in the background if that hangs. */
  async release(unwanted: AsyncDisposable): Promise<void> {
    const released = (async () => await unwanted[Symbol.asyncDispose]())();
    this.inBackground(released);
    await settledWithin(released, RELEASE_MS);
  }

  /** Waits a grace period for background work, then cancels it; work that still hangs is abandoned. */
  async [Symbol.asyncDispose](): Promise<void> {
    await settledWithin(this.#settled(), GRACE_MS);
    this.#closing.abort(new CastoreError("aborted", "abandoned: the cache was disposed of"));
    await settledWithin(this.#settled(), RELEASE_MS);
  }

  async #settled(): Promise<void> {
    while (this.#background.size > 0) await Promise.all(this.#background);
  }

  async #try<R>(
    policy: LocalPolicy,
    action: string,
    call: LocalCall<T, R>,
    options?: AbortOptions,
  ): Promise<R | undefined> {
    const outer = options?.signal;
    outer?.throwIfAborted();
    const run = (late: AbortSignal) =>
      call(this.near, { signal: outer ? AbortSignal.any([outer, late]) : late });
    try {
      return await unlessAborted(policy.execute(run), outer);
    } catch (error) {
      outer?.throwIfAborted();
      this.warn(action, error);
      return undefined;
    }
  }
}

/** Waits until a promise is settled, for at most a time in milliseconds. */
async function settledWithin(promise: Promise<unknown>, timeoutMs: number): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, timeoutMs);
  try {
    await Promise.race([Promise.allSettled([promise]), late]);
  } finally {
    clearTimeout(timer);
  }
}
