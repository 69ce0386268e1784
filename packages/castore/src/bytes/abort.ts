/**
 * Waits for something that others may wait for too: cancelling ends the waiting, not the thing. That it fails is
 * nobody's concern then.
 */
export async function unlessAborted<T>(promise: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (signal === undefined) return await promise;
  promise.catch(() => undefined); // also where it is not waited for at all
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

/** A stream, for as long as it is not cancelled: what it waits for may never come. */
export function untilAborted<T>(stream: AsyncIterable<T>, signal?: AbortSignal): AsyncGenerator<T> {
  return inSteps(stream, (next) => unlessAborted(next(), signal));
}

/**
 * A stream of which every item is waited for in some way.
 *
 * @param wait gives up waiting by rejecting. The stream then ends when its item comes, and nobody listens
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
    ended?.catch(() => undefined); // what it was read for is had, or has failed already
    if (!isWaiting && ended !== undefined) await wait(() => ended).catch(() => undefined);
  }
}
