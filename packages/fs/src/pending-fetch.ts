import { CastoreError } from "@tvix/castore";

/** Something that is being fetched for some needs: it ends when nobody wants any of them, or its time is over. */
export class PendingFetch {
  readonly #wanted: Set<string>;
  readonly #controller = new AbortController();
  readonly #untilMs: number;
  readonly #timer: NodeJS.Timeout | undefined;

  /**
   * @param keys those of the needs
   * @param options.timeoutMs its time limit in milliseconds; 0 for none
   * @param options.untilMs when its time is over, on the clock of `performance`. Default: after the time limit
   */
  constructor(
    keys: Iterable<string>,
    {
      timeoutMs,
      untilMs = performance.now() + (timeoutMs || Number.POSITIVE_INFINITY),
    }: { timeoutMs: number; untilMs?: number },
  ) {
    this.#wanted = new Set(keys);
    this.#untilMs = untilMs;
    if (timeoutMs === 0) return;
    const stop = () => this.#controller.abort(outOfTime(timeoutMs));
    this.#timer = setTimeout(stop, untilMs - performance.now());
  }

  /** Is aborted with CastoreError `unavailable` when its time is over, with an `AbortError` when nobody wants it. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** When its time is over, on the clock of `performance`. */
  get untilMs(): number {
    return this.#untilMs;
  }

  /** Whether a need is still wanted. */
  wants(key: string): boolean {
    return this.#wanted.has(key);
  }

  /** Notes that nobody wants a need any more, or that it goes on elsewhere. */
  drop(key: string): void {
    this.#wanted.delete(key);
    if (this.#wanted.size > 0) return;
    this.end();
    this.#controller.abort(new DOMException("interrupted", "AbortError"));
  }

  /** Notes that it has ended. */
  end(): void {
    clearTimeout(this.#timer);
  }
}

function outOfTime(timeoutMs: number): CastoreError {
  return new CastoreError(
    "unavailable",
    `Cannot read from the store: expected an answer within ${timeoutMs} ms, found none`,
  );
}
