import { unlessAborted } from "./abort.ts";
import type { AbortOptions } from "./abort-options.ts";

interface Flight<T> {
  readonly result: Promise<T>;
  readonly abandon: AbortController;
  waiting: number;
}

/** Shares one run of an operation among concurrent callers, and cancels it when all of them have cancelled. */
export class SingleFlight<T> {
  readonly #running = new Map<string, Flight<T>>();

  /**
   * Joins the operation in flight under a key, or starts it. Cancelling ends the wait; the operation continues while
   * other callers wait.
   *
   * @param work the operation, cancelled by its signal
   */
  async run(
    key: string,
    work: (signal: AbortSignal) => Promise<T>,
    options?: AbortOptions,
  ): Promise<T> {
    options?.signal?.throwIfAborted();
    const flight = this.#running.get(key) ?? this.#start(key, work);
    flight.waiting += 1;
    try {
      return await unlessAborted(flight.result, options?.signal);
    } finally {
      flight.waiting -= 1;
      if (flight.waiting === 0 && this.#running.get(key) === flight) {
        // Now, so that no caller joins a cancelled operation.
        this.#running.delete(key);
        flight.abandon.abort(new DOMException("abandoned: all callers have gone", "AbortError"));
      }
    }
  }

  #start(key: string, work: (signal: AbortSignal) => Promise<T>): Flight<T> {
    const abandon = new AbortController();
    const flight: Flight<T> = { result: work(abandon.signal), abandon, waiting: 0 };
    this.#running.set(key, flight);
    const ended = () => this.#ended(key, flight);
    flight.result.then(ended, ended);
    return flight;
  }

  #ended(key: string, flight: Flight<T>): void {
    if (this.#running.get(key) === flight) this.#running.delete(key);
  }
}
