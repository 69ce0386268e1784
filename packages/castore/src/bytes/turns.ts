import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { AbortOptions } from "./abort-options.ts";

/** Options of {@link inTurns}. */
export interface TurnOptions extends AbortOptions {
  /** Called before each batch; what it returns is disposed of after it. Default: nothing is. */
  readonly around?: (() => Disposable) | undefined;
}

/**
 * Maps items by a synchronous function, and yields to the event loop between batches.
 *
 * @param perTurn number of items in a batch
 */
export async function inTurns<Item, Result>(
  items: readonly Item[],
  perTurn: number,
  map: (item: Item) => Result,
  options?: TurnOptions,
): Promise<Result[]> {
  const results: Result[] = [];
  for (let at = 0; at < items.length || at === 0; at += perTurn) {
    if (at > 0) await yieldToEvents();
    options?.signal?.throwIfAborted();
    using _ = options?.around?.();
    for (const item of items.slice(at, at + perTurn)) results.push(map(item));
  }
  return results;
}
