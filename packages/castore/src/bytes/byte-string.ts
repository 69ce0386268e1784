/** Compares byte strings lexicographically: negative, zero or positive. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  return Buffer.compare(a, b);
}

/** Tells whether two byte strings are equal. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Copies bytes. (`slice` of a Buffer does not copy.) */
export function copyBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

/** Returns the same bytes, in the same memory, as a `Buffer`. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** Returns the same bytes, in the same memory, not as a `Buffer`, whose `slice` does not copy. */
export function asPlainBytes<T extends ArrayBufferLike>(bytes: Uint8Array<T>): Uint8Array<T> {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** Joins parts into one byte string; a single part is returned without a copy. */
export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}

/** Joins parts in memory of their own: other bytes in the same memory would travel to another thread with them. */
export function joinApart(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/**
 * Formats bytes for a message: quoted, with `\xNN` for bytes that are not printable ASCII. Truncated after 100 bytes.
 */
export function quoteBytes(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes.subarray(0, 100)) {
    const plain = byte >= 0x20 && byte < 0x7f && byte !== 0x22 && byte !== 0x5c;
    text += plain ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`;
  }
  return bytes.length > 100 ? `"${text}"... (${bytes.length} bytes)` : `"${text}"`;
}

/**
 * Reads a whole stream into one byte string. Its pieces may be valid only until the next one. For contents known to be
 * small.
 */
export async function collectBytes(stream: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  return (await collectAtMost(stream, Number.POSITIVE_INFINITY))!;
}

/** Like {@link collectBytes}; `undefined` for more than `maxBytes`, without reading the rest. */
export function collectAtMost(
  stream: AsyncIterable<Uint8Array>,
  maxBytes: number,
): Promise<Uint8Array | undefined> {
  return joinAtMost(stream, maxBytes, copyBytes);
}

/** Like {@link collectAtMost}, for a stream whose pieces belong to the caller, so that they need no copy. */
export function takeAtMost(
  stream: AsyncIterable<Uint8Array>,
  maxBytes: number,
): Promise<Uint8Array | undefined> {
  return joinAtMost(stream, maxBytes, (piece) => piece);
}

async function joinAtMost(
  stream: AsyncIterable<Uint8Array>,
  maxBytes: number,
  keep: (piece: Uint8Array) => Uint8Array,
): Promise<Uint8Array | undefined> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of stream) {
    length += part.length;
    if (length > maxBytes) return undefined;
    parts.push(keep(part));
  }
  return concatBytes(parts);
}
