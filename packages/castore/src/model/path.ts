import { quoteBytes } from "../bytes/byte-string.ts";
import { CastoreError } from "./errors.ts";

declare const validated: unique symbol;

/**
 * The name of an entry in a directory: 1 to 255 bytes without `/` and NUL, neither `.` nor `..`.
 * Bytes, not text: the names of a file system need not be UTF-8. Made by {@link pathComponent}.
 */
export type PathComponent = Uint8Array & { readonly [validated]: "PathComponent" };

/** Longest name in bytes. */
const MAX_NAME_LENGTH = 255;

const SLASH = 0x2f;
const DOT = 0x2e;

/**
 * Validates a name. Strings are taken as UTF-8, bytes without a copy.
 *
 * @throws CastoreError `invalid_argument` naming the rule that is broken
 */
export function pathComponent(name: Uint8Array | string): PathComponent {
  const bytes = typeof name === "string" ? new TextEncoder().encode(name) : name;
  const broken = brokenRule(bytes, 0, bytes.length);
  if (broken !== undefined) {
    throw new CastoreError("invalid_argument", `Cannot use name ${quoteBytes(bytes)}: ${broken}`);
  }
  return bytes as PathComponent;
}

/** Tells whether bytes, or those from `start` up to `end`, are a valid name. */
export function isPathComponent(
  bytes: Uint8Array,
  start: number = 0,
  end: number = bytes.length,
): bytes is PathComponent {
  return brokenRule(bytes, start, end) === undefined;
}

function brokenRule(bytes: Uint8Array, start: number, end: number): string | undefined {
  const length = end - start;
  if (length === 0) return "expected at least 1 byte, found none";
  if (length > MAX_NAME_LENGTH) {
    return `expected at most ${MAX_NAME_LENGTH} bytes, found ${length}`;
  }
  for (let at = start; at < end; at++) {
    if (bytes[at] === 0) return "expected no NUL byte";
    if (bytes[at] === SLASH) return 'expected no "/"';
  }
  if (bytes[start] === DOT && (length === 1 || (length === 2 && bytes[start + 1] === DOT))) {
    return 'expected neither "." nor ".."';
  }
  return undefined;
}
