import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError } from "../model/errors.ts";
import { Patience, settledWithin } from "./patience.ts";

/**
 * Where what is put into a service with two halves goes. What is read always comes from the near half, or
 * else from the far one, and is then kept in the near one.
 *
 * - `write-through`: to both. It is stored once the far half has it; a near half that fails is only warned of
 * - `near-only`: to the near half
 * - `far-only`: to the far half
 */
export type TierMode = "write-through" | "near-only" | "far-only";

/** Every {@link TierMode}. */
export const TIER_MODES = ["write-through", "near-only", "far-only"] as const;

/** What a service of two halves is made of. Neither is disposed of with it. */
export interface TierOptions<T> {
  /** The half that is asked first, and keeps what is read from the other. */
  near: T;
  /** The half that is asked for what the near one does not have. */
  far: T;
  /** Default: `write-through`. */
  mode?: TierMode | undefined;
  /** Is told of failures of the near half, which fail nobody's call. Default: a process warning. */
  onWarning?: ((message: string) => void) | undefined;
  /**
   * How long the near half may take, in milliseconds, to answer, or to give the next piece of what is read. One that
   * takes longer is left alone for as long again, and all is read from the far half. Default: 5,000.
   */
  nearReadTimeoutMs?: number | undefined;
  /**
   * How long the near half may take, in milliseconds, for one step of storing, such as the end of a blob. What takes
   * longer is not kept there, and nothing is for as long again. Default: 30,000.
   */
  nearWriteTimeoutMs?: number | undefined;
}

/** How long what goes on in the background may take to end by itself when it is all disposed of, in milliseconds. */
const GRACE_MS = 500;

/** How long what is not wanted any more is waited for, in milliseconds. */
const RELEASE_MS = 250;

/** A use of the near half: what cancels it has to be passed on. */
type NearUse<T, R> = (near: T, options: { signal: AbortSignal }) => Promise<R>;

/** What is common to services of two halves. */
export class Tiers<T> implements AsyncDisposable {
  readonly near: T;
  readonly far: T;
  readonly mode: TierMode;
  /** What reading from the near half may take. */
  readonly reading: Patience;
  /** What storing in the near half may take. */
  readonly writing: Patience;
  readonly #onWarning: (message: string) => void;
  readonly #closing = new AbortController();
  readonly #background = new Set<Promise<unknown>>();

  constructor(className: string, options: TierOptions<T>) {
    const { near, far, mode, onWarning } = options;
    this.near = near;
    this.far = far;
    this.mode = mode ?? "write-through";
    this.reading = new Patience(options.nearReadTimeoutMs ?? 5_000);
    this.writing = new Patience(options.nearWriteTimeoutMs ?? 30_000);
    this.#onWarning = onWarning ?? ((message) => process.emitWarning(`${className}: ${message}`));
  }

  /** Cancels what nobody waits for, once the service is disposed of. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /**
   * Asks the near half. One that fails, or is silent, has nothing.
   *
   * @param action what is attempted, for the warning: "read blob ... from"
   * @throws `signal.reason` when cancelled
   */
  tryNear<R>(action: string, ask: NearUse<T, R>, options?: AbortOptions): Promise<R | undefined> {
    return this.#try(this.reading, action, ask, options);
  }

  /**
   * Stores something in the near half.
   *
   * @returns whether it is there
   * @throws `signal.reason` when cancelled
   */
  async storeNear(
    action: string,
    store: NearUse<T, unknown>,
    options?: AbortOptions,
  ): Promise<boolean> {
    const done: NearUse<T, true> = async (near, options) => {
      await store(near, options);
      return true;
    };
    return (await this.#try(this.writing, action, done, options)) ?? false;
  }

  /**
   * Opens a stream of the near half, whose items are waited for as {@link tryNear} does, but which fails where the near
   * half does.
   *
   * @returns `undefined` if there is none, or the near half does not answer
   * @throws `signal.reason` when cancelled
   */
  async openNear<R>(
    action: string,
    open: NearUse<T, AsyncIterable<R> | undefined>,
    options?: AbortOptions,
  ): Promise<AsyncIterable<R> | undefined> {
    const use = this.reading.begin(options?.signal);
    if (use === undefined) return undefined;
    try {
      const stream = await use.step(() => open(this.near, { signal: use.signal }));
      if (stream !== undefined) return use.each(stream);
    } catch (error) {
      options?.signal?.throwIfAborted();
      this.warn(action, error);
    }
    use[Symbol.dispose]();
    return undefined;
  }

  /** Tells of a failure of the near half. */
  warn(action: string, error: unknown): void {
    const { message } = error instanceof Error ? error : new Error(String(error));
    this.#onWarning(`Cannot ${action} the near half: ${message}`);
  }

  /** Has something go on that nobody waits for, but for disposing. Whether it fails does not matter any more. */
  inBackground(task: Promise<unknown>): void {
    const over = task
      .catch(() => undefined) // whoever has to know was told
      .finally(() => this.#background.delete(over));
    this.#background.add(over);
  }

  /** Disposes of something of a half, which may not answer: it is waited for a short time only. */
  async release(unwanted: AsyncDisposable): Promise<void> {
    const released = (async () => await unwanted[Symbol.asyncDispose]())();
    this.inBackground(released);
    await settledWithin(released, RELEASE_MS);
  }

  /**
   * Waits a short time for what goes on in the background, as what was read last should be kept too; then gives it up,
   * which a half that does not heed it is not waited for.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await settledWithin(this.#settled(), GRACE_MS);
    this.#closing.abort(new CastoreError("aborted", "Cannot go on: the service is disposed of"));
    await settledWithin(this.#settled(), RELEASE_MS);
  }

  async #settled(): Promise<void> {
    while (this.#background.size > 0) await Promise.all(this.#background);
  }

  async #try<R>(
    patience: Patience,
    action: string,
    ask: NearUse<T, R>,
    options?: AbortOptions,
  ): Promise<R | undefined> {
    using use = patience.begin(options?.signal);
    try {
      return await use?.step(() => ask(this.near, { signal: use.signal }));
    } catch (error) {
      options?.signal?.throwIfAborted();
      this.warn(action, error);
      return undefined;
    }
  }
}
