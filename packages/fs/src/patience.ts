import { setTimeout as sleep } from "node:timers/promises";
import { type CastoreError, hasCode, unlessAborted } from "@tvix/castore";

/** Pauses between attempts, in milliseconds: the first, and the longest. */
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2_000;

/** Repeats fetches while a store is unavailable, as when its daemon restarts. */
export class Patience {
  readonly #onOutage: (error: CastoreError | undefined) => void;
  #isOut = false;

  /** @param onOutage is told once when a store becomes unavailable, and once when it is back */
  constructor(onOutage: (error: CastoreError | undefined) => void) {
    this.#onOutage = onOutage;
  }

  /**
   * Runs a fetch until it succeeds, fails for another reason than `unavailable`, or is cancelled.
   *
   * @throws what `fetch` throws; `signal.reason`, or, if that is `unavailable` as well, the last failure
   */
  async with<T>(fetch: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    let last: CastoreError | undefined;
    const throwIfAborted = () => {
      if (last !== undefined && signal.aborted && hasCode(signal.reason, "unavailable")) throw last;
      signal.throwIfAborted();
    };
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
      try {
        const found = await unlessAborted(fetch(signal), signal);
        this.#tell(undefined);
        return found;
      } catch (error) {
        throwIfAborted();
        if (!hasCode(error, "unavailable")) throw error;
        last = error;
        this.#tell(error);
      }
      await sleep(pause, undefined, { signal }).catch(() => undefined);
      throwIfAborted();
    }
  }

  #tell(error: CastoreError | undefined): void {
    if (this.#isOut === (error !== undefined)) return;
    this.#isOut = error !== undefined;
    this.#onOutage(error);
  }
}
