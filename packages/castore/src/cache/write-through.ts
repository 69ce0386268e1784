import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import type { PatientUse } from "./patience.ts";
import type { Tiers } from "./tiers.ts";

/** What writes to the near half, while somebody else needs the same: from its first failure on, to no effect. */
export class NearWriter<T, W extends AsyncDisposable> implements AsyncDisposable {
  readonly #tiers: Tiers<T>;
  readonly #action: string;
  readonly #signal: AbortSignal | undefined;
  readonly #use: PatientUse | undefined;
  #writer: W | undefined;

  /**
   * @param action what is attempted, for the warning
   * @param options.signal cancels the writer, which is no failure of it
   */
  constructor(
    tiers: Tiers<T>,
    action: string,
    open: (near: T, options: { signal: AbortSignal }) => W,
    options?: AbortOptions,
  ) {
    this.#tiers = tiers;
    this.#action = action;
    this.#signal = options?.signal;
    this.#use = tiers.writing.begin(options?.signal);
    if (this.#use === undefined) return;
    try {
      this.#writer = open(tiers.near, { signal: this.#use.signal });
    } catch (error) {
      this.#failed(error);
    }
  }

  /**
   * Never rejects, and never waits for longer than the near half may take.
   *
   * @returns whether it went well, as everything before did
   */
  async try(use: (writer: W) => Promise<unknown>): Promise<boolean> {
    const writer = this.#writer;
    if (writer === undefined) return false;
    try {
      await this.#use!.step(() => use(writer));
      return true;
    } catch (error) {
      this.#writer = undefined;
      this.#failed(error);
      this.#tiers.inBackground(this.#tiers.release(writer));
      return false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const writer = this.#writer;
    this.#writer = undefined;
    this.#use?.[Symbol.dispose]();
    if (writer !== undefined) await this.#tiers.release(writer);
  }

  #failed(error: unknown): void {
    if (!this.#signal?.aborted) this.#tiers.warn(this.#action, error);
  }
}

/** What ends with a digest, once all of it is durable. */
interface Closing extends AsyncDisposable {
  close(): Promise<B3Digest>;
}

/** Writes to both halves. The near one has what was put only if the far one does: else nobody would put it again. */
export abstract class WriteThrough<T, W extends Closing> implements Closing {
  protected readonly far: W;
  protected readonly near: NearWriter<T, W>;
  #closed: Promise<B3Digest> | undefined;

  /** @param open opens the writer of a half */
  constructor(
    tiers: Tiers<T>,
    open: (half: T, options?: AbortOptions) => W,
    options?: AbortOptions,
  ) {
    this.far = open(tiers.far, options);
    this.near = new NearWriter(tiers, "write to", open, options);
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
