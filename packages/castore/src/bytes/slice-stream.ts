/** Streams the bytes from position `start` up to, but not including, `end`. */
export async function* sliceStream(
  stream: AsyncIterable<Uint8Array>,
  start: number,
  end: number,
): AsyncGenerator<Uint8Array> {
  let position = 0;
  for await (const data of stream) {
    const from = Math.max(start - position, 0);
    const part = data.subarray(from, Math.max(end - position, from));
    position += data.length;
    if (part.length > 0) yield part;
    if (position >= end) return;
  }
}
