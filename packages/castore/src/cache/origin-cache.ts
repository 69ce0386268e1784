import { inSteps, unlessAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError } from "../model/errors.ts";
import { BrokenCircuitError, LocalPolicy } from "./local-policy.ts";

/**
 * Where a cache puts what is written. What is read is always looked for in the local store first, then in the origin,
 * and is then stored in the local one.
 *
 * - `write-through`: to both. It is stored once the origin has it; failures of the local store are only warned of
 * - `near-only`: to the local store
 * - `far-only`: to the origin
 */
export type CacheMode = "write-through" | "near-only" | "far-only";

/** Every {@link CacheMode}. */
export const CACHE_MODES = ["write-through", "near-only", "far-only"] as const;

/** Options of a cache. Neither store is disposed of with it. */
export interface CacheOptions<T> {
  /** The local store. */
  near: T;
  /** The origin. */
  far: T;
  /** Default: `write-through`. */
  mode?: CacheMode | undefined;
  /** Is told of failures of the local store, which fail nobody's call. Default: a process warning. */
  onWarning?: ((message: string) => void) | undefined;
  /**
   * How long the local store may take to answer, or to give the next item of a stream, in milliseconds. One that takes
   * longer, or is unavailable, is not read for as long again: everything comes from the origin. Default: 5,000.
   */
  nearReadTimeoutMs?: number | undefined;
  /**
   * How long one step of writing to the local store may take, in milliseconds. If one takes longer, or the store is
   * unavailable or full, nothing is stored there for as long again. Default: 30,000.
   */
  nearWriteTimeoutMs?: number | undefined;
}

/** How long stores in the background may take to end when a cache is disposed of, in milliseconds. */
const GRACE_MS = 500;

/** How long disposing of something waits before it goes on in the background, in milliseconds. */
const RELEASE_MS = 250;

/** A call of the local store, to be cancelled by the signal. */
export type LocalCall<T, R> = (near: T, options: { signal: AbortSignal }) => Promise<R>;

/** A local store in front of an origin: what the caches of all contracts have in common. */
export class OriginCache<T> implements AsyncDisposable {
  readonly near: T;
  readonly far: T;
  readonly mode: CacheMode;
  readonly #reading: LocalPolicy;
  readonly #writing: LocalPolicy;
  readonly #onWarning: (message: string) => void;
  readonly #closing = new AbortController();
  readonly #background = new Set<Promise<unknown>>();

  /** @param className begins process warnings */
  constructor(className: string, options: CacheOptions<T>) {
    const { near, far, mode, onWarning } = options;
    this.near = near;
    this.far = far;
    this.mode = mode ?? "write-through";
    this.#reading = new LocalPolicy(options.nearReadTimeoutMs ?? 5_000);
    this.#writing = new LocalPolicy(options.nearWriteTimeoutMs ?? 30_000);
    this.#onWarning = onWarning ?? ((message) => process.emitWarning(`${className}: ${message}`));
  }

  /** Cancels work in the background, once the cache is disposed of. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /**
   * Reads from the local store.
   *
   * @param action what is attempted, for the warning: "read blob ... from"
   * @returns `undefined` if it fails, or takes too long
   * @throws `signal.reason` when cancelled
   */
  read<R>(action: string, call: LocalCall<T, R>, options?: AbortOptions): Promise<R | undefined> {
    return this.#try(this.#reading, action, call, options);
  }

  /**
   * Writes to the local store.
   *
   * @returns whether it went well
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
   * @throws from iterating, what the local store throws, or that it takes too long, both of which are warned of;
   *   `signal.reason` when cancelled
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
   * Asks the local store, then the origin for those items that the local store answers nothing for.
   *
   * @param call asks one of them. An answer that is `undefined` or `false` is nothing
   * @param onFound is told each answer of the origin that is something. Default: nobody is
   * @returns the answers, in order
   * @throws what the origin throws
   */
  async ask<Item, R>(
    action: string,
    items: readonly Item[],
    call: (store: T, items: readonly Item[], options?: AbortOptions) => Promise<readonly R[]>,
    options?: AbortOptions,
    onFound?: (item: Item, answer: R) => void,
  ): Promise<readonly R[]> {
    options?.signal?.throwIfAborted();
    const askNear: LocalCall<T, readonly R[]> = (near, options) => call(near, items, options);
    const near = (await this.read(action, askNear, options)) ?? [];
    const missing = items.filter((_, i) => !near[i]);
    const far = missing.length > 0 ? await call(this.far, missing, options) : [];
    for (const [i, answer] of far.entries()) if (answer) onFound?.(missing[i]!, answer);
    let next = 0;
    return items.map((_, i) => near[i] || far[next++]!);
  }

  /** Tells of a failure of the local store, but for calls that the circuit breaker refused. */
  warn(action: string, error: unknown): void {
    if (error instanceof BrokenCircuitError) return;
    const message = error instanceof Error ? error.message : String(error);
    this.#onWarning(`Cannot ${action} the local store: ${message}`);
  }

  /** Lets something go on that nobody waits for but disposal. It is to tell of its failures itself. */
  inBackground(task: Promise<unknown>): void {
    const over = task.catch(() => undefined).finally(() => this.#background.delete(over));
    this.#background.add(over);
  }

  /** Disposes of something that may hang: goes on with it in the background after a short time. */
  async release(unwanted: AsyncDisposable): Promise<void> {
    const released = (async () => await unwanted[Symbol.asyncDispose]())();
    this.inBackground(released);
    await settledWithin(released, RELEASE_MS);
  }

  /** Waits a short time for what goes on in the background, then cancels it; whatever hangs is left. */
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

/** Waits until something is over, well or not, but no longer than a time in milliseconds. */
async function settledWithin(promise: Promise<unknown>, timeoutMs: number): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, timeoutMs);
  try {
    await Promise.race([Promise.allSettled([promise]), late]);
  } finally {
    clearTimeout(timer);
  }
}
