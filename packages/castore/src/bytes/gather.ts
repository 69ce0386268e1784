import { setImmediate as turnEnd } from "node:timers/promises";

/**
 * Yields encoded items of a stream, all that come within a turn of the event loop at a time. Asks for one item ahead.
 *
 * @param maxBytes a group ends when it has as many bytes
 */
export async function* gatherEncoded<T>(
  items: AsyncIterable<T>,
  encode: (item: T) => Uint8Array,
  maxBytes: number,
): AsyncGenerator<readonly Uint8Array[]> {
  const iterator = items[Symbol.asyncIterator]();
  let isOver = false;
  const ask = async (): Promise<IteratorResult<T>> => {
    try {
      const result = await iterator.next();
      isOver = result.done ?? false;
      return result;
    } catch (error) {
      isOver = true;
      throw error;
    }
  };
  try {
    let next = ask();
    for (;;) {
      const first = await next;
      if (first.done) return;
      const group = [encode(first.value)];
      let bytes = group[0]!.length;
      const end = turnEnd(undefined);
      next = ask();
      next.catch(() => undefined); // it is awaited when the group is done with
      while (bytes < maxBytes) {
        const result = await Promise.race([next, end]);
        if (result === undefined || result.done) break;
        const encoded = encode(result.value);
        group.push(encoded);
        bytes += encoded.length;
        next = ask();
        next.catch(() => undefined);
      }
      yield group;
    }
  } finally {
    if (!isOver) await iterator.return?.();
  }
}
