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
  const broken = brokenRule(bytes);
  if (broken !== undefined) {
    throw new CastoreError("invalid_argument", `Cannot use name ${quoteBytes(bytes)}: ${broken}`);
  }
  return bytes as PathComponent;
}

/** Tells whether bytes are a valid name. */
export function isPathComponent(bytes: Uint8Array): bytes is PathComponent {
  return brokenRule(bytes) === undefined;
}

function brokenRule(bytes: Uint8Array): string | undefined {
  if (bytes.length === 0) return "expected at least 1 byte, found none";
  if (bytes.length > MAX_NAME_LENGTH) {
    return `expected at most ${MAX_NAME_LENGTH} bytes, found ${bytes.length}`;
  }
  if (bytes.includes(0)) return "expected no NUL byte";
  if (bytes.includes(SLASH)) return 'expected no "/"';
  if (bytes[0] === DOT && (bytes.length === 1 || (bytes.length === 2 && bytes[1] === DOT))) {
    return 'expected neither "." nor ".."';
  }
  return undefined;
}
