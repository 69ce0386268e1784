import { asBuffer } from "../bytes/byte-string.ts";
import { CastoreError } from "../model/errors.ts";
import { gearKernel, WINDOW_SIZE } from "./gear-kernel.ts";

/** Average length of a chunk in bytes, unless another is chosen. */
export const DEFAULT_AVERAGE_CHUNK_SIZE: number = 256 * 1024;

const SMALLEST_AVERAGE = 2 ** 14;
const LARGEST_AVERAGE = 2 ** 22;

/**
 * The masks of FastCDC by the logarithm of the chunk size that each one leads to, from 13 on. As
 * published with FastCDC (up to 17) and restic-FastCDC, and used by the Rust crate `fastcdc` 3.1.
 */
const MASKS: readonly bigint[] = [
  0x0000_d903_0353_0000n,
  0x0000_d903_1353_0000n,
  0x0000_d90f_0353_0000n,
  0x0000_d903_0353_7000n,
  0x0000_d907_0353_7000n,
  0x0000_d907_0753_7000n,
  0x0000_d917_0753_7000n,
  0x0000_d917_4753_7000n,
  0x0000_d917_6753_7000n,
  0x0000_d937_6753_7000n,
  0x0000_d937_7753_7000n,
];
const FIRST_MASK = 13;

/** @throws CastoreError `invalid_argument` for an average size, in bytes, that is not offered */
export function assertAverageChunkSize(size: number): void {
  if (Number.isInteger(Math.log2(size)) && size >= SMALLEST_AVERAGE && size <= LARGEST_AVERAGE) {
    return;
  }
  throw new CastoreError(
    "invalid_argument",
    `Cannot cut into chunks of ${size} bytes on average: expected a power of two from ` +
      `${SMALLEST_AVERAGE} to ${LARGEST_AVERAGE}`,
  );
}

/** Tells whether a blob of a length in bytes is too short to be cut, whatever is in it. */
export function isUncut(
  length: number,
  averageChunkSize: number = DEFAULT_AVERAGE_CHUNK_SIZE,
): boolean {
  return length <= averageChunkSize / 2;
}

/**
 * Cuts a stream of bytes into chunks by their content, so that equal stretches of different streams
 * give equal chunks. FastCDC, the variant of 2020 with normalisation level 1: a chunk has at least
 * half and at most twice the average size, but for the last, which may be shorter.
 *
 * The same bytes give the same chunks however they are divided over calls, and the chunks that tvix
 * makes of them. Not to be used further after {@link finish}.
 */
export class Chunker {
  readonly #minSize: number;
  readonly #averageSize: number;
  readonly #maxSize: number;
  /** For positions below the average: one bit more than the average asks for, so it matches less. */
  readonly #maskBelow: bigint;
  /** For positions from the average on: one bit less, so it matches more. */
  readonly #maskAbove: bigint;

  /** Begins with the bytes of the current chunk that came with earlier calls. */
  #pending: Uint8Array = new Uint8Array(0);
  #pendingSize = 0;
  /** Up to where the current chunk has been examined, and the rolling hash there. */
  #scanned: number;
  #hash = 0n;

  /**
   * @param averageSize average length of a chunk in bytes, a power of two from 16 KiB to 4 MiB.
   *   Default: 256 KiB
   * @throws CastoreError `invalid_argument` for any other size
   */
  constructor(averageSize: number = DEFAULT_AVERAGE_CHUNK_SIZE) {
    assertAverageChunkSize(averageSize);
    const bits = Math.log2(averageSize);
    this.#minSize = averageSize / 2;
    this.#averageSize = averageSize;
    this.#maxSize = averageSize * 2;
    this.#maskBelow = MASKS[bits + 1 - FIRST_MASK]!;
    this.#maskAbove = MASKS[bits - 1 - FIRST_MASK]!;
    this.#scanned = this.#minSize;
  }

  /**
   * Adds bytes, and yields the chunks that they complete, in order; often none. To be iterated to its end
   * before anything else is called. A chunk is only lent: its bytes are used again when the next one is
   * asked for.
   */
  *push(data: Uint8Array): Generator<Uint8Array, void> {
    let rest = data;
    while (rest.length > 0) {
      const size = this.#findCut(rest);
      if (size === undefined) {
        this.#keep(rest);
        return;
      }
      this.#begin();
      if (this.#pendingSize === 0) {
        yield rest.subarray(0, size);
        rest = rest.subarray(size);
        continue;
      }
      const missing = Math.max(size - this.#pendingSize, 0);
      this.#keep(rest.subarray(0, missing));
      rest = rest.subarray(missing);
      yield this.#pending.subarray(0, size);
      // A cut before a byte that waited for its partner leaves that one for the next chunk.
      this.#pending.copyWithin(0, size, this.#pendingSize);
      this.#pendingSize -= size;
    }
  }

  /**
   * Ends the stream. Returns the last chunk, of any length, which is the caller's to keep; `undefined` if
   * nothing is left.
   */
  finish(): Uint8Array | undefined {
    if (this.#pendingSize === 0) return undefined;
    const chunk = this.#pending.subarray(0, this.#pendingSize);
    this.#pending = new Uint8Array(0);
    this.#pendingSize = 0;
    return chunk;
  }

  /**
   * Returns the length of the chunk that `data` begins with; `undefined` if it does not end there. Nothing is added.
   * To be called ahead of any {@link push}.
   */
  firstCut(data: Uint8Array): number | undefined {
    const size = this.#findCut(data);
    this.#begin();
    return size;
  }

  /** Begins to examine a chunk. */
  #begin(): void {
    this.#scanned = this.#minSize;
    this.#hash = 0n;
  }

  /** The length of the current chunk, if it ends within `data`, which follows what is pending. */
  #findCut(data: Uint8Array): number | undefined {
    const end = Math.min(this.#pendingSize + data.length, this.#maxSize);
    // Bytes are examined in pairs: an odd one waits for its partner, and goes unexamined if it is the
    // last of all. No byte below the minimum is.
    if (end - this.#scanned >= 2) {
      const kernel = gearKernel();
      kernel.hash = this.#hash;
      while (end - this.#scanned >= 2) {
        const below = this.#scanned < this.#averageSize;
        const limit = below ? Math.min(end, this.#averageSize) : end;
        const length = Math.min(limit - this.#scanned, WINDOW_SIZE) & ~1;
        this.#fill(kernel.window, data, length);
        const match = kernel.scan(length, below ? this.#maskBelow : this.#maskAbove);
        if (match >= 0) return this.#scanned + match;
        this.#scanned += length;
      }
      this.#hash = kernel.hash;
    }
    return end === this.#maxSize ? end : undefined;
  }

  /** Copies the next bytes to examine to the window: `data`, but for a pending byte that waited. */
  #fill(window: Uint8Array, data: Uint8Array, length: number): void {
    const from = this.#scanned - this.#pendingSize;
    if (from < 0) window[0] = this.#pending[this.#scanned]!;
    const start = Math.max(from, 0);
    // From shared memory, `set` copies at a fifth of the speed.
    asBuffer(data).copy(window, start - from, start, from + length);
  }

  #keep(data: Uint8Array): void {
    const size = this.#pendingSize + data.length;
    if (size > this.#pending.length) {
      const larger = allocate(Math.min(Math.max(size, this.#pending.length * 2), this.#maxSize));
      larger.set(this.#pending.subarray(0, this.#pendingSize));
      this.#pending = larger;
    }
    this.#pending.set(data, this.#pendingSize);
    this.#pendingSize = size;
  }
}

/** Makes room for bytes that are all written at once; zeroing it first takes noticeable time. */
function allocate(size: number): Uint8Array {
  return new Uint8Array(Buffer.allocUnsafeSlow(size).buffer);
}
