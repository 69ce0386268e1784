import type { B3Digest } from "./digest.ts";
import type { AbortOptions } from "./options.ts";

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
}

/** What is common to services of two halves. */
export class Tiers<T> {
  readonly near: T;
  readonly far: T;
  readonly mode: TierMode;
  readonly #onWarning: (message: string) => void;

  constructor(className: string, { near, far, mode, onWarning }: TierOptions<T>) {
    this.near = near;
    this.far = far;
    this.mode = mode ?? "write-through";
    this.#onWarning = onWarning ?? ((message) => process.emitWarning(`${className}: ${message}`));
  }

  /**
   * Asks the near half. One that fails has nothing.
   *
   * @param action what is attempted, for the warning: "read blob ... from"
   * @throws `signal.reason` when cancelled
   */
  async tryNear<R>(
    action: string,
    ask: (near: T) => Promise<R>,
    options?: AbortOptions,
  ): Promise<R | undefined> {
    try {
      return await ask(this.near);
    } catch (error) {
      options?.signal?.throwIfAborted();
      this.warn(action, error);
      return undefined;
    }
  }

  warn(action: string, error: unknown): void {
    const { message } = error instanceof Error ? error : new Error(String(error));
    this.#onWarning(`Cannot ${action} the near half: ${message}`);
  }
}

/** What writes to the near half along with the far one: from its first failure on, to no effect. */
class NearWriter<W extends AsyncDisposable> implements AsyncDisposable {
  readonly #tiers: Tiers<unknown>;
  readonly #signal: AbortSignal | undefined;
  #writer: W | undefined;

  /** @param options.signal cancels the writer, which is no failure of it */
  constructor(tiers: Tiers<unknown>, open: () => W, options?: AbortOptions) {
    this.#tiers = tiers;
    this.#signal = options?.signal;
    try {
      this.#writer = open();
    } catch (error) {
      tiers.warn("write to", error);
    }
  }

  /** Never rejects. */
  async try(use: (writer: W) => Promise<unknown>): Promise<void> {
    const writer = this.#writer;
    if (writer === undefined) return;
    try {
      await use(writer);
    } catch (error) {
      this.#writer = undefined;
      if (!this.#signal?.aborted) this.#tiers.warn("write to", error);
      await Promise.allSettled([writer[Symbol.asyncDispose]()]); // what failed was told
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.try(async (writer) => await writer[Symbol.asyncDispose]());
  }
}

/** What ends with a digest, once all of it is durable. */
interface Closing extends AsyncDisposable {
  close(): Promise<B3Digest>;
}

/** Writes to both halves. The near one has what was put only if the far one does: else nobody would put it again. */
export abstract class WriteThrough<W extends Closing> implements Closing {
  protected readonly far: W;
  protected readonly near: NearWriter<W>;
  #closed: Promise<B3Digest> | undefined;

  constructor(tiers: Tiers<unknown>, far: W, openNear: () => W, options?: AbortOptions) {
    this.far = far;
    this.near = new NearWriter(tiers, openNear, options);
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
    await this.near.try((near) => near.close());
    return digest;
  }
}
