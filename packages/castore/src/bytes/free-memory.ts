/** Less than this is left to the garbage collector, in bytes. */
const MIN_BYTES = 64 * 1024;

/**
 * Frees the memory of byte strings at once, if nothing else is in it. V8 counts the memory of buffers, and collects the whole
 * heap whenever some ten megabytes of them wait: a stream of contents would spend a third of its time on that.
 *
 * @param pieces all that is in one buffer, of which every byte belongs to the caller. They are empty afterwards
 */
export function freeMemory(pieces: readonly Uint8Array[]): void {
  const buffer = pieces[0]?.buffer;
  if (!(buffer instanceof ArrayBuffer) || buffer.byteLength < MIN_BYTES) return;
  let length = 0;
  for (const piece of pieces) {
    if (piece.buffer !== buffer) return;
    length += piece.length;
  }
  if (length === buffer.byteLength) buffer.transfer(0);
}
