/** Compares byte strings lexicographically: negative, zero or positive. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  return Buffer.compare(a, b);
}

/** Whether two byte strings are the same. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** The same bytes in memory of their own. (`slice` does not copy where they are a Buffer.) */
export function copyBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

/** Joins parts into one byte string; a single part is returned as it is. */
export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}

/**
 * Shows bytes in a message: quoted, with `\xNN` for whatever is not printable ASCII. Long input is
 * cut after 100 bytes.
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
 * Reads a stream to its end into one byte string, whose pieces may only be lent. For contents known to be
 * small.
 */
export async function collectBytes(stream: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  return (await collectAtMost(stream, Number.POSITIVE_INFINITY))!;
}

/** Like {@link collectBytes}; `undefined` for more than `maxBytes`, of which the rest is not read. */
export function collectAtMost(
  stream: AsyncIterable<Uint8Array>,
  maxBytes: number,
): Promise<Uint8Array | undefined> {
  return joinAtMost(stream, maxBytes, copyBytes);
}

/** Like {@link collectAtMost}, of a stream whose pieces belong to whoever iterates. They are given up. */
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
