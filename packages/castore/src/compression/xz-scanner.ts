import { asBuffer, quoteBytes } from "../bytes/byte-string.ts";

/** Largest dictionary of a block in bytes. A decoder holds one in memory; `xz -9` makes 64 MiB. */
const MAX_DICTIONARY = 128 * 1024 * 1024;

const MAGIC = Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]);
const HEADER_BYTES = 12;
const FOOTER_BYTES = 12;
const LZMA2 = 0x21;

/** Length of a check in bytes, by its type. */
const CHECK_BYTES = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64] as const;

/** What is wrong with xz. */
class XzError extends Error {
  override readonly name = "XzError";
}

/** A block of xz has a dictionary that is larger than is taken. */
export class XzDictionaryError extends XzError {}

/** Takes bytes, or skips them, whose number it yields: skipped where it is negative. */
type Scan<T> = Generator<number, T, Buffer>;

/**
 * Follows the structure of an xz file as it passes, for its decoder allocates whatever dictionary a block asks for.
 * Checksums are left to the decoder.
 *
 * Format: The .xz File Format 1.2.1; for chunks of LZMA2, the documentation of the Linux kernel's decoder.
 */
export class XzScanner {
  readonly #scan: Scan<never> = this.#streams();
  #wanted = 0;
  #taken: Buffer = Buffer.alloc(0);
  #isAtEnd = false;
  #contentSize = 0;

  constructor() {
    this.#wanted = this.#scan.next().value;
  }

  /**
   * Looks at the next bytes.
   *
   * @throws XzDictionaryError for a dictionary of more than 128 MiB, XzError for what is no xz
   */
  push(data: Uint8Array): void {
    const bytes = asBuffer(data);
    for (let at = 0; at < bytes.length; ) {
      if (this.#wanted < 0) {
        const length = Math.min(-this.#wanted, bytes.length - at);
        at += length;
        this.#wanted += length;
        if (this.#wanted === 0) this.#next();
      } else {
        const part = bytes.subarray(at, at + this.#wanted - this.#taken.length);
        at += part.length;
        this.#isAtEnd = false;
        this.#taken = Buffer.concat([this.#taken, part]);
        if (this.#taken.length === this.#wanted) this.#next();
      }
    }
  }

  /** How many bytes the chunks that have begun say that they hold. A decoder makes no more of them. */
  get contentSize(): number {
    return this.#contentSize;
  }

  /** @throws XzError unless all streams that have begun are complete */
  end(): void {
    if (!this.#isAtEnd) {
      throw new XzError("it breaks off: expected the rest of a stream, found the end");
    }
  }

  #next(): void {
    const taken = this.#taken;
    this.#taken = Buffer.alloc(0);
    this.#wanted = this.#scan.next(taken).value;
  }

  *#streams(): Scan<never> {
    const onChunk = (size: number) => {
      this.#contentSize += size;
    };
    for (;;) {
      const start = yield 4;
      if (start.every((byte) => byte === 0)) {
        // Padding between streams, and behind the last one.
      } else {
        yield* scanStream(Buffer.concat([start, yield HEADER_BYTES - 4]), onChunk);
      }
      this.#isAtEnd = true;
    }
  }
}

/** @param onChunk is told how many bytes a chunk says that it holds */
function* scanStream(header: Buffer, onChunk: (size: number) => void): Scan<void> {
  if (!header.subarray(0, MAGIC.length).equals(MAGIC)) {
    const found = quoteBytes(header.subarray(0, MAGIC.length));
    throw new XzError(`expected a stream, which begins with ${quoteBytes(MAGIC)}, found ${found}`);
  }
  const checkBytes = CHECK_BYTES[header[7]! & 0x0f]!;
  for (;;) {
    const size = (yield 1)[0]!;
    if (size === 0) break;
    yield* scanBlock(yield 4 * size + 3, checkBytes, onChunk);
  }
  yield* scanIndex();
  yield -FOOTER_BYTES;
}

/** @param header of a block, without its first byte */
function* scanBlock(
  header: Buffer,
  checkBytes: number,
  onChunk: (size: number) => void,
): Scan<void> {
  checkDictionary(header);
  let size = 0;
  for (;;) {
    const control = (yield 1)[0]!;
    size += 1;
    if (control === 0) break;
    if (control > 2 && control < 0x80) {
      throw new XzError(`expected a chunk of LZMA2, found one of kind ${control}`);
    }
    // Behind the length come properties of LZMA in some kinds, and the data.
    const isLzma = control >= 0x80;
    const lengths = yield isLzma ? 4 : 2;
    onChunk((isLzma ? (control & 0x1f) << 16 : 0) + lengths.readUInt16BE() + 1);
    const rest = lengths.readUInt16BE(isLzma ? 2 : 0) + 1 + (control >= 0xc0 ? 1 : 0);
    yield -rest;
    size += lengths.length + rest;
  }
  const rest = padding(size) + checkBytes;
  if (rest > 0) yield -rest;
}

/** Refuses a block whose dictionary is too large. */
function checkDictionary(header: Buffer): void {
  const flags = header[0]!;
  let at = 1;
  const number = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = header[at++];
      if (byte === undefined) throw new XzError("expected a header of a block, found its end");
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  };
  if ((flags & 0x40) !== 0) number(); // compressed size
  if ((flags & 0x80) !== 0) number(); // uncompressed size
  for (let filters = (flags & 3) + 1; filters > 0; filters--) {
    const id = number();
    const length = number();
    const bits = (header[at] ?? 0) & 0x3f;
    at += length;
    const dictionary = (2 | (bits & 1)) * 2 ** ((bits >>> 1) + 11);
    if (id !== LZMA2 || dictionary <= MAX_DICTIONARY) continue;
    throw new XzDictionaryError(
      `expected a dictionary of at most ${MAX_DICTIONARY} bytes, found ${dictionary}`,
    );
  }
}

/** Goes past an index behind its first byte, and its padding and checksum. */
function* scanIndex(): Scan<void> {
  let size = 1;
  const number = function* (): Scan<number> {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = (yield 1)[0]!;
      size += 1;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  };
  for (let records = yield* number(); records > 0; records--) {
    yield* number();
    yield* number();
  }
  yield -(padding(size) + 4);
}

function padding(size: number): number {
  return (4 - (size % 4)) % 4;
}
