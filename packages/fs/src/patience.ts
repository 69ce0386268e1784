import { setTimeout as sleep } from "node:timers/promises";
import { CastoreError, hasCode, unlessAborted } from "@tvix/castore";

/** How long the stores are waited for. */
export interface PatienceOptions {
  /** Time limit of one fetch, with its repetitions, in milliseconds; 0 for none. */
  readonly timeoutMs: number;
  /** Is told once when a store becomes unavailable, and once when it is back. */
  readonly onOutage: (error: CastoreError | undefined) => void;
}

/** Pauses between attempts, in milliseconds: the first, and the longest. */
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2_000;

/** Repeats fetches while a store is unavailable, as when its daemon restarts. */
export class Patience {
  readonly #options: PatienceOptions;
  #isOut = false;

  constructor(options: PatienceOptions) {
    this.#options = options;
  }

  /**
   * Runs a fetch until it succeeds, fails for another reason than `unavailable`, or its time is over.
   *
   * @throws CastoreError `unavailable` after the time limit; what `fetch` throws; `signal.reason`
   */
  async with<T>(fetch: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    const { timeoutMs } = this.#options;
    const limit = timeoutMs > 0 ? AbortSignal.timeout(timeoutMs) : undefined;
    const either = limit ? AbortSignal.any([signal, limit]) : signal;
    let last: CastoreError | undefined;
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
      try {
        const found = await unlessAborted(fetch(either), either);
        this.#tell(undefined);
        return found;
      } catch (error) {
        signal.throwIfAborted();
        if (limit?.aborted) throw last ?? outOfTime(timeoutMs);
        if (!hasCode(error, "unavailable")) throw error;
        last = error;
        this.#tell(error);
      }
      await sleep(pause, undefined, { signal: either }).catch(() => undefined);
      signal.throwIfAborted();
      if (limit?.aborted) throw last;
    }
  }

  #tell(error: CastoreError | undefined): void {
    if (this.#isOut === (error !== undefined)) return;
    this.#isOut = error !== undefined;
    this.#options.onOutage(error);
  }
}

function outOfTime(timeoutMs: number): CastoreError {
  return new CastoreError(
    "unavailable",
    `Cannot read from the store: expected an answer within ${timeoutMs} ms, found none`,
  );
}
