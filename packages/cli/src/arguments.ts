import { isUtf8 } from "node:buffer";
import { readFileSync, readlinkSync } from "node:fs";
import { resolve } from "node:path";

/** Replaces bytes that Node could not decode. */
const REPLACEMENT = "\ufffd";

/** The lone surrogate of a byte is the byte added to this. */
const ESCAPE = 0xdc00;

/** The lone surrogates of escaped bytes, 0x80 to 0xff. */
const ESCAPED = /[\udc80-\udcff]/u;

/**
 * Returns the arguments after the script, without loss. Bytes that are not UTF-8, which Node replaces in `process.argv`,
 * are escaped as lone surrogates U+DC80 to U+DCFF, as Python does (PEP 383, surrogateescape). Only Linux shows the bytes;
 * elsewhere the arguments are those of Node.
 */
export function commandArguments(): string[] {
  const decoded = process.argv.slice(2);
  if (!decoded.some((argument) => argument.includes(REPLACEMENT))) return decoded;
  const raw = readArguments();
  return raw === undefined ? decoded : raw.slice(-decoded.length).map(escapeBytes);
}

/** Whether an argument has bytes that are not UTF-8. */
export function hasEscapedBytes(argument: string): boolean {
  return ESCAPED.test(argument);
}

/** Returns the absolute path that an argument names: a string if it is UTF-8, bytes otherwise. */
export function absolutePath(argument: string): string | Buffer {
  const path = argumentBytes(argument).toString("latin1"); // one character for each byte
  const bytes = Buffer.from(
    path.startsWith("/") ? resolve(path) : resolve(workingFolder().toString("latin1"), path),
    "latin1",
  );
  return isUtf8(bytes) ? bytes.toString() : bytes;
}

/** Returns the bytes of an argument. */
export function argumentBytes(argument: string): Buffer {
  const parts = Array.from(argument, (character) =>
    hasEscapedBytes(character)
      ? Buffer.of(character.charCodeAt(0) - ESCAPE)
      : Buffer.from(character),
  );
  return Buffer.concat(parts);
}

/** Returns all arguments of this process as bytes; `undefined` where the system does not show them. */
function readArguments(): Buffer[] | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync("/proc/self/cmdline");
  } catch {
    return undefined;
  }
  const found: Buffer[] = [];
  for (let start = 0; start < bytes.length; ) {
    const end = bytes.indexOf(0, start);
    found.push(bytes.subarray(start, end));
    start = end + 1;
  }
  return found;
}

function workingFolder(): Buffer {
  const decoded = process.cwd();
  if (!decoded.includes(REPLACEMENT)) return Buffer.from(decoded);
  return readlinkSync("/proc/self/cwd", "buffer");
}

/** Returns the text of bytes; those that are not UTF-8 are escaped as {@link commandArguments} does. */
export function escapeBytes(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString();
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const length = [1, 2, 3, 4].find((length) => isUtf8(bytes.subarray(at, at + length)));
    text +=
      length === undefined
        ? String.fromCharCode(ESCAPE + bytes[at]!)
        : bytes.toString("utf8", at, at + length);
    at += length ?? 1;
  }
  return text;
}
