import pLimit from "p-limit";
import type { AbortOptions } from "./abort-options.ts";

/**
 * Maps items by an asynchronous function, some at the same time. After the first failure no further call begins.
 *
 * @param concurrency how many calls are under way at the same time
 * @param map is given a signal that is aborted when the result is no longer wanted
 * @returns the results, in the order of the items
 * @throws whatever `map` rejects with first, or `signal.reason`, once every call that began has ended
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
      failed.abort(error); // at once: the next call begins in the same turn
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
