/**
 * Waits for a promise until it is cancelled. Cancelling ends the wait, not the operation, whose later failure is
 * ignored.
 */
export async function unlessAborted<T>(promise: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (signal === undefined) return await promise;
  promise.catch(() => undefined); // also if the signal is already aborted
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** Iterates over a stream until it is cancelled, also while its next item is pending. */
export function untilAborted<T>(stream: AsyncIterable<T>, signal?: AbortSignal): AsyncGenerator<T> {
  return inSteps(stream, (next) => unlessAborted(next(), signal));
}

/**
 * Iterates over a stream, with a custom wait for each item.
 *
 * @param wait rejects to give up. The stream is then ended in the background, once its pending item arrives
 */
export async function* inSteps<T>(
  stream: AsyncIterable<T>,
  wait: (next: () => Promise<IteratorResult<T>>) => Promise<IteratorResult<T>>,
): AsyncGenerator<T> {
  const iterator = stream[Symbol.asyncIterator]();
  let isWaiting = false;
  try {
    for (;;) {
      isWaiting = true;
      const { done, value } = await wait(() => iterator.next());
      isWaiting = false;
      if (done) return;
      yield value;
    }
  } finally {
    const ended = iterator.return?.();
    ended?.catch(() => undefined); // the result, or an earlier error, is already known
    if (!isWaiting && ended !== undefined) await wait(() => ended).catch(() => undefined);
  }
}
