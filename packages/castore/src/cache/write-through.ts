import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import type { OriginCache } from "./origin-cache.ts";

/** Opens a writer of a store. */
type OpenWriter<T, W> = (store: T, options: AbortOptions) => W;

/** A writer of the local store. The first step that fails ends it, and the steps after that do nothing. */
export class LocalWriter<T, W extends AsyncDisposable> implements AsyncDisposable {
  readonly #cache: OriginCache<T>;
  readonly #action: string;
  readonly #options: AbortOptions | undefined;
  readonly #stop = new AbortController();
  #writer: W | undefined;

  /**
   * @param action the operation, for the warning
   * @param options.signal cancels the writer
   */
  constructor(
    cache: OriginCache<T>,
    action: string,
    open: OpenWriter<T, W>,
    options?: AbortOptions,
  ) {
    this.#cache = cache;
    this.#action = action;
    this.#options = options;
    const signals = [this.#stop.signal, ...(options?.signal ? [options.signal] : [])];
    try {
      this.#writer = open(cache.near, { signal: AbortSignal.any(signals) });
    } catch (error) {
      cache.warn(action, error);
    }
  }

  /**
   * Runs a step of the writer, within the timeout of the local store.
   *
   * @returns whether this step and all before it succeeded
   * @throws `signal.reason` when cancelled
   */
  async step(use: (writer: W) => Promise<unknown>): Promise<boolean> {
    const writer = this.#writer;
    if (writer === undefined) return false;
    const isDone = await this.#cache.write(this.#action, () => use(writer), this.#options);
    if (!isDone) this.#cache.inBackground(this[Symbol.asyncDispose]());
    return isDone;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const writer = this.#writer;
    this.#writer = undefined;
    if (writer === undefined) return;
    this.#stop.abort();
    await this.#cache.release(writer);
  }
}

/** A writer or putter: closing it returns a digest, once everything is durable. */
interface Closing extends AsyncDisposable {
  close(): Promise<B3Digest>;
}

/** Writes to the origin and to the local store. The local store keeps nothing that the origin refused. */
export abstract class WriteThrough<T, W extends Closing> implements Closing {
  protected readonly far: W;
  protected readonly near: LocalWriter<T, W>;
  #closed: Promise<B3Digest> | undefined;

  constructor(cache: OriginCache<T>, open: OpenWriter<T, W>, options?: AbortOptions) {
    this.far = open(cache.far, options ?? {});
    this.near = new LocalWriter(cache, "write to", open, options);
  }

  close(): Promise<B3Digest> {
    this.#closed ??= this.#finish();
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.far[Symbol.asyncDispose](), this.near[Symbol.asyncDispose]()]);
  }

  async #finish(): Promise<B3Digest> {
    const digest = await this.far.close();
    await this.near.step((near) => near.close());
    return digest;
  }
}
