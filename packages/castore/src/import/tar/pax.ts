import { quoteBytes } from "../../bytes/byte-string.ts";
import { parseDecimal, TarSyntaxError } from "./header.ts";

/** A key and a value of an extended header of POSIX. */
export type PaxRecord = readonly [key: string, value: Buffer];

const SPACE = 0x20;
const NEWLINE = 0x0a;

/**
 * Reads the records of an extended header. Values are bytes, whatever encoding the header states.
 *
 * Format: POSIX.1-2024, pax, "pax Extended Header".
 *
 * @param bytes are shared with the values
 * @throws TarSyntaxError for anything else
 */
export function* parsePax(bytes: Buffer): Generator<PaxRecord> {
  for (let at = 0; at < bytes.length; ) {
    // The decimal length of the record, a space, the key, "=", the value, a newline.
    const space = bytes.indexOf(SPACE, at);
    const length = parseDecimal(bytes.subarray(at, Math.max(space, at)), "length of a record");
    const record = bytes.subarray(space + 1, at + length);
    const equals = record.indexOf("=");
    if (at + length > bytes.length || equals < 1 || record.at(-1) !== NEWLINE) {
      throw new TarSyntaxError(
        `expected a record of ${length} bytes, found ${quoteBytes(bytes.subarray(at))}`,
      );
    }
    yield [record.toString("latin1", 0, equals), record.subarray(equals + 1, -1)];
    at += length;
  }
}
