import { unlessAborted } from "./abort.ts";
import type { AbortOptions } from "./abort-options.ts";

interface Flight<T> {
  readonly result: Promise<T>;
  readonly abandon: AbortController;
  waiting: number;
}

/** Runs work once for all callers that ask for it while it is under way, and cancels it when the last of them has gone. */
export class SingleFlight<T> {
  readonly #running = new Map<string, Flight<T>>();

  /**
   * Joins the work that goes on under a key, or starts it. Cancelling ends the waiting; the work goes on as long as
   * others wait.
   *
   * @param work is cancelled by the signal that it gets
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
      if (flight.waiting === 0) {
        // At once, so that nobody joins what is being given up.
        this.#ended(key, flight);
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
