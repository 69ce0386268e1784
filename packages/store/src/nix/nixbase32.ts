/**
 * Encodes and decodes nixbase32, the base 32 of Nix: digits and letters without e, o, t and u, the most significant
 * digit first.
 * https://nix.dev/manual/nix/latest/protocols/nix32
 */
import { quoteText, StoreError } from "../errors.ts";

const ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz";

/** The value of each ASCII character, -1 where it has none. */
const VALUES = Int8Array.from({ length: 128 }, (_, code) =>
  ALPHABET.indexOf(String.fromCharCode(code)),
);

/** Returns whether a character code is in the alphabet. */
export function isNixbase32(code: number): boolean {
  return (VALUES[code] ?? -1) >= 0;
}

/** Returns how many characters encode `length` bytes. */
export function nixbase32Length(length: number): number {
  return Math.ceil((length * 8) / 5);
}

/** Encodes bytes. */
export function encodeNixbase32(bytes: Uint8Array): string {
  let text = "";
  for (let digit = nixbase32Length(bytes.length) - 1; digit >= 0; digit--) {
    const bit = digit * 5;
    const index = bit >>> 3;
    const pair = bytes[index]! | ((bytes[index + 1] ?? 0) << 8);
    text += ALPHABET[(pair >>> (bit & 7)) & 31];
  }
  return text;
}

/**
 * Decodes text.
 *
 * @throws StoreError `invalid_argument` for characters outside of the alphabet, a length that no number
 *   of bytes has, or bits after the last byte that are not zero
 */
export function decodeNixbase32(text: string): Uint8Array {
  const bytes = new Uint8Array(Math.floor((text.length * 5) / 8));
  if (nixbase32Length(bytes.length) !== text.length) {
    throw invalid(text, `expected the length of an encoding, found ${text.length} characters`);
  }
  for (let digit = 0; digit < text.length; digit++) {
    const at = text.length - 1 - digit;
    const value = VALUES[text.charCodeAt(at)] ?? -1; // not ASCII
    if (value < 0) {
      throw invalid(
        text,
        `expected characters of "${ALPHABET}", found ${quoteText(text.charAt(at))}`,
      );
    }
    const bit = digit * 5;
    const index = bit >>> 3;
    const shifted = value << (bit & 7);
    bytes[index] = bytes[index]! | (shifted & 0xff);
    const carry = shifted >>> 8;
    if (index + 1 < bytes.length) bytes[index + 1] = bytes[index + 1]! | carry;
    else if (carry !== 0) throw invalid(text, "expected the unused bits to be zero");
  }
  return bytes;
}

/** How many characters encode a group of bytes, and how many bytes that is. */
const GROUP_CHARACTERS = 8;
const GROUP_BYTES = 5;

/**
 * Decodes ASCII that is known to be nixbase32, of whole groups: 8 characters for 5 bytes.
 *
 * @param source where the characters are, from `start` on
 * @param target where the bytes go, from `at` on
 * @param length how many bytes
 */
export function decodeNixbase32Groups(
  source: Uint8Array,
  start: number,
  target: Uint8Array,
  at: number,
  length: number,
): void {
  let digit = start + (length / GROUP_BYTES) * GROUP_CHARACTERS;
  for (let byte = at; byte < at + length; byte += GROUP_BYTES) {
    digit -= GROUP_CHARACTERS;
    const high = VALUES[source[digit + 3]!]!;
    const low =
      (high << 20) |
      (VALUES[source[digit + 4]!]! << 15) |
      (VALUES[source[digit + 5]!]! << 10) |
      (VALUES[source[digit + 6]!]! << 5) |
      VALUES[source[digit + 7]!]!;
    const top =
      (VALUES[source[digit]!]! << 10) |
      (VALUES[source[digit + 1]!]! << 5) |
      VALUES[source[digit + 2]!]!;
    target[byte] = low;
    target[byte + 1] = low >>> 8;
    target[byte + 2] = low >>> 16;
    target[byte + 3] = (low >>> 24) | (top << 1);
    target[byte + 4] = top >>> 7;
  }
}

function invalid(text: string, reason: string): StoreError {
  return new StoreError(
    "invalid_argument",
    `Cannot decode nixbase32 ${quoteText(text)}: ${reason}`,
  );
}
