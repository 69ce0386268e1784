import type { AbortOptions } from "@tvix/castore";
import pLimit from "p-limit";

/**
 * Maps items by an asynchronous function, some at the same time.
 *
 * @param concurrency how many are mapped at the same time
 * @param map is given a signal that is aborted when the result is no longer wanted
 * @returns the results, in the order of the items
 * @throws whatever `map` rejects with first, once every other call has ended
 */
export async function mapInParallel<Item, Result>(
  items: readonly Item[],
  concurrency: number,
  map: (item: Item, options: { signal: AbortSignal }) => Promise<Result>,
  options?: AbortOptions,
): Promise<Result[]> {
  const failed = new AbortController();
  const signals = options?.signal ? [options.signal, failed.signal] : [failed.signal];
  const signal = AbortSignal.any(signals);
  const run = async (item: Item): Promise<Result> => {
    signal.throwIfAborted();
    return await map(item, { signal });
  };
  const limit = pLimit(concurrency);
  const running = items.map((item) => limit(run, item));
  try {
    return await Promise.all(running);
  } catch (error) {
    failed.abort(error);
    await Promise.allSettled(running);
    throw error;
  }
}
