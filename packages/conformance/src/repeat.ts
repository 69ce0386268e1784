import { type AbortOptions, type B3Digest, CastoreError } from "@tvix/castore";
import type { Collector } from "./faulty-collector.ts";

/**
 * How often a call is made at most that fails, and one that says that something is absent. The former is more often than
 * faults happen in all: a call that fails every time is right to.
 */
const ATTEMPTS = 32;
const LOOKS = 12;

/** Why a call may succeed that is made again. */
const PASSING = new Set(["unavailable", "data_loss", "aborted"]);

/** Options of {@link repeat}. */
export interface RepeatOptions<T> extends AbortOptions {
  /** Whether an answer says that something is absent, as what is damaged may count as absent. Default: never. */
  readonly isAbsent?: (answer: T) => boolean;
  /** Is awaited before a call is made again. */
  readonly prepare?: () => Promise<void>;
}

/**
 * Makes a call again while it fails with what may pass, and some times while it says that something is absent.
 *
 * @throws what it failed with last, but rather anything than `unavailable`: that may be a fault that passes
 */
export async function repeat<T>(
  call: () => Promise<T>,
  { isAbsent = () => false, prepare, signal }: RepeatOptions<T> = {},
): Promise<T> {
  let looks = 0;
  let failure: CastoreError | undefined;
  for (let attempt = 1; ; attempt++) {
    try {
      const answer = await call();
      looks += 1;
      if (looks === LOOKS || !isAbsent(answer)) return answer;
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof CastoreError && PASSING.has(error.code))) throw error;
      if (failure === undefined || error.code !== "unavailable") failure = error;
      if (attempt === ATTEMPTS) throw failure;
      await prepare?.();
    }
  }
}

/** A writer, or putter, that begins anew, with all that was added, whenever it fails with what may pass. */
export function repeatingCollector<T, C extends AsyncDisposable & { close(): Promise<B3Digest> }>(
  open: () => C,
  add: (collector: C, item: T) => Promise<void>,
  options?: AbortOptions,
): Collector<T> {
  const items: T[] = [];
  let collector = open();
  let added = 0;
  let closed: Promise<B3Digest> | undefined;
  const prepare = async () => {
    await collector[Symbol.asyncDispose]();
    collector = open();
    added = 0;
  };
  const addAll = async () => {
    for (; added < items.length; added++) await add(collector, items[added]!);
  };
  const close = async () => {
    await addAll();
    return await collector.close();
  };
  return {
    async add(item) {
      items.push(item);
      await repeat(addAll, { ...options, prepare });
    },
    close() {
      closed ??= repeat(close, { ...options, prepare });
      return closed;
    },
    [Symbol.asyncDispose]: () => collector[Symbol.asyncDispose](),
  };
}
