import { inSteps, unlessAborted } from "../bytes/abort.ts";
import { CastoreError } from "../model/errors.ts";

/**
 * How long something that others can do without may be silent. What was silent for that long is left alone for as
 * long again; then one use of it finds out whether it answers, and the others do without it meanwhile.
 */
export class Patience {
  readonly #timeoutMs: number;
  #silentUntil = 0;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** Whether it is left alone. */
  get isSilent(): boolean {
    return performance.now() < this.#silentUntil;
  }

  /**
   * Begins to use it; `undefined` while it is left alone.
   *
   * @param signal cancels the use
   */
  begin(signal?: AbortSignal): PatientUse | undefined {
    if (this.isSilent) return undefined;
    if (this.#silentUntil > 0) this.#leaveAlone();
    const heard = (answers: boolean) => {
      if (answers) this.#silentUntil = 0;
      else this.#leaveAlone();
    };
    return new PatientUse(this.#timeoutMs, heard, signal);
  }

  #leaveAlone(): void {
    this.#silentUntil = performance.now() + this.#timeoutMs;
  }
}

/** One use of something, none of whose steps may take too long. From the first that does on, it is cancelled. */
export class PatientUse implements Disposable {
  readonly #timeoutMs: number;
  readonly #heard: (answers: boolean) => void;
  readonly #outer: AbortSignal | undefined;
  readonly #controller = new AbortController();
  readonly #onAbort = () => this.#controller.abort(this.#outer?.reason);

  constructor(timeoutMs: number, heard: (answers: boolean) => void, signal?: AbortSignal) {
    this.#timeoutMs = timeoutMs;
    this.#heard = heard;
    this.#outer = signal;
    if (signal?.aborted) this.#onAbort();
    else signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** What is used is to be given this. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /**
   * Waits for one step.
   *
   * @throws CastoreError `unavailable` when it takes too long; `signal.reason` when the use is cancelled; what the
   *   step rejects with
   */
  async step<T>(start: () => Promise<T>): Promise<T> {
    this.signal.throwIfAborted();
    const timer = setTimeout(() => this.#giveUp(), this.#timeoutMs);
    try {
      const result = await unlessAborted(start(), this.signal);
      this.#heard(true);
      return result;
    } finally {
      clearTimeout(timer);
    }
  }

  /** A stream, of which every item is a step. The use ends with it. */
  async *each<T>(stream: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      yield* inSteps(stream, (next) => this.step(next));
    } finally {
      this[Symbol.dispose]();
    }
  }

  [Symbol.dispose](): void {
    this.#outer?.removeEventListener("abort", this.#onAbort);
  }

  #giveUp(): void {
    this.#heard(false);
    this.#controller.abort(new CastoreError("unavailable", `no answer for ${this.#timeoutMs} ms`));
  }
}

/** Waits until something is over, well or not, but no longer than a time in milliseconds. */
export async function settledWithin(promise: Promise<unknown>, timeoutMs: number): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, timeoutMs);
  try {
    await Promise.race([Promise.allSettled([promise]), late]);
  } finally {
    clearTimeout(timer);
  }
}
