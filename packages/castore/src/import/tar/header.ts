import { quoteBytes } from "../../bytes/byte-string.ts";

/** Length in bytes of a header, and of the blocks that contents are padded to. */
export const BLOCK_LENGTH = 512;

/** Fields of a header. An extended header before it may override them. */
export interface TarHeader {
  /** Path of the member, not validated. */
  readonly path: Buffer;
  /** Permissions, of which the owner's right to execute counts. */
  readonly mode: number;
  /** Bytes that follow, without the padding. */
  readonly size: number;
  /** Type flag, a character; `0` also for the NUL of old archives. */
  readonly kind: string;
  /** Target of a link, not validated. */
  readonly target: Buffer;
  /** Whether it is in the old GNU format, which describes sparse files in the header. */
  readonly isGnu: boolean;
  /** The header itself. */
  readonly block: Buffer;
}

/** What is wrong with a header or its extension. */
export class TarSyntaxError extends Error {
  override readonly name = "TarSyntaxError";
}

/**
 * Reads a header in the format of the seventh edition of Unix, POSIX (ustar) or GNU.
 *
 * Format: POSIX.1-2024, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
 *
 * @param block is copied
 * @returns `undefined` for a block of zeros, which ends the archive
 * @throws TarSyntaxError for what is no header
 */
export function parseHeader(block: Buffer): TarHeader | undefined {
  const sums = checksums(block);
  if (sums.unsigned === SUM_OF_SPACES && block.every((byte) => byte === 0)) return undefined;
  const field = block.subarray(148, 156);
  const sum = numberIn(field);
  if (sum !== sums.unsigned && sum !== sums.signed) {
    throw new TarSyntaxError(
      `expected a tar header with the checksum ${sums.unsigned.toString(8)}, found ${quoteBytes(field)}`,
    );
  }
  const copy = Buffer.from(block);
  const magic = copy.toString("latin1", 257, 265);
  const name = textAt(copy, 0, 100);
  // Other formats keep something else in its place.
  const prefix = magic.startsWith("ustar\0") ? textAt(copy, 345, 155) : Buffer.alloc(0);
  const kind = copy[156] === 0 ? "0" : String.fromCharCode(copy[156]!);
  return {
    path: prefix.length > 0 ? Buffer.concat([prefix, SLASH, name]) : name,
    mode: parseNumber(copy.subarray(100, 108), "mode"),
    size: parseNumber(copy.subarray(124, 136), "size"),
    kind,
    target: textAt(copy, 157, 100),
    isGnu: magic === "ustar  \0",
    block: copy,
  };
}

const SLASH = Buffer.from("/");
const SPACE = 0x20;
const ZERO = 0x30;

/** Sum of the field of the checksum, which counts as spaces. */
const SUM_OF_SPACES = 8 * SPACE;

/** Returns the sums of a header with its bytes as unsigned and, as old writers did it, as signed numbers. */
function checksums(block: Buffer): { unsigned: number; signed: number } {
  let unsigned = SUM_OF_SPACES;
  let high = 0;
  for (let i = 0; i < BLOCK_LENGTH; i++) {
    if (i >= 148 && i < 156) continue;
    const byte = block[i]!;
    unsigned += byte;
    high += byte >>> 7;
  }
  return { unsigned, signed: unsigned - 256 * high };
}

/** Returns the string in a field, which ends with a NUL or the field. Shares the memory. */
export function textAt(bytes: Buffer, start: number, length: number): Buffer {
  const field = bytes.subarray(start, start + length);
  const end = field.indexOf(0);
  return end < 0 ? field : field.subarray(0, end);
}

/**
 * Reads a number of a header: octal digits, or a big-endian number behind a bit that is set.
 *
 * @throws TarSyntaxError for anything else, negative numbers, and those of more than 53 bits
 */
export function parseNumber(field: Buffer, what: string): number {
  const number = numberIn(field);
  if (number === undefined) throw wrongNumber(field, what);
  return number;
}

function numberIn(field: Buffer): number | undefined {
  if ((field[0]! & 0x80) !== 0) {
    let value = field[0]! & 0x7f; // so that a negative number is too large
    for (const byte of field.subarray(1)) value = value * 256 + byte;
    return Number.isSafeInteger(value) ? value : undefined;
  }
  let at = 0;
  let value = 0;
  while (field[at] === SPACE) at++;
  for (; isOctalDigit(field[at]); at++) value = value * 8 + field[at]! - ZERO;
  while (field[at] === SPACE) at++;
  const isWhole = at >= field.length || field[at] === 0;
  return isWhole && Number.isSafeInteger(value) ? value : undefined;
}

function isOctalDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= ZERO && byte < ZERO + 8;
}

function wrongNumber(field: Buffer, what: string): TarSyntaxError {
  return new TarSyntaxError(`expected a number as ${what}, found ${quoteBytes(field)}`);
}

/**
 * Reads a number in decimal digits, as in extended headers.
 *
 * @throws TarSyntaxError for anything else, and for numbers of more than 53 bits
 */
export function parseDecimal(digits: Buffer, what: string): number {
  const text = digits.toString("latin1");
  const value = Number(text);
  if (!/^[0-9]+$/.test(text) || !Number.isSafeInteger(value)) throw wrongNumber(digits, what);
  return value;
}
