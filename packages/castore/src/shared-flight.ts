import { unlessAborted } from "./abort.ts";
import { CastoreError } from "./errors.ts";
import type { AbortOptions } from "./options.ts";

interface Flight<T> {
  readonly result: Promise<T>;
  readonly abandon: AbortController;
  waiting: number;
}

/** Work that is done once for all who wait for it while it goes on, and given up when nobody does any more. */
export class SharedFlight<T> {
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
        flight.abandon.abort(new CastoreError("aborted", "Cannot go on: nobody waits any more"));
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
