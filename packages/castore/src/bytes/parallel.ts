import pLimit from "p-limit";
import type { AbortOptions } from "./abort-options.ts";

/**
 * Maps items by an asynchronous function, several concurrently. After the first failure no further call starts.
 *
 * @param concurrency maximum number of concurrent calls
 * @param map receives a signal that is aborted when its result is no longer needed
 * @returns the results, in the order of the items
 * @throws the first error of `map`, or `signal.reason`, once every started call has ended
 */
export async function mapInParallel<Item, Result>(
  items: Iterable<Item>,
  concurrency: number,
  map: (item: Item, options: { signal: AbortSignal }) => Promise<Result>,
  options?: AbortOptions,
): Promise<Result[]> {
  const failed = new AbortController();
  const signals = options?.signal ? [options.signal, failed.signal] : [failed.signal];
  const signal = AbortSignal.any(signals);
  const limit = pLimit(concurrency);
  const run = async (item: Item): Promise<Result> => {
    signal.throwIfAborted();
    try {
      return await map(item, { signal });
    } catch (error) {
      failed.abort(error); // now, as the next call starts in the same turn
      throw error;
    }
  };
  const running = Array.from(items, (item) => limit(run, item));
  try {
    return await Promise.all(running);
  } finally {
    await Promise.allSettled(running);
  }
}
