import { CastoreError } from "./errors.ts";

/** A part of something that has a length in bytes. */
export interface RangeOptions {
  /** First byte. Default: 0. At or past the end, the part is empty. */
  offset?: number;
  /** Length of the part in bytes, at most. Default: to the end. */
  length?: number;
}

/**
 * Resolves a range against a length of `size` bytes: from `start` up to, but without, `end`. It is empty
 * at or past the end.
 *
 * @throws CastoreError `invalid_argument` for an offset or length that is no natural number
 */
export function resolveRange(size: number, options?: RangeOptions): { start: number; end: number } {
  const { offset = 0, length = size } = options ?? {};
  for (const [name, value] of Object.entries({ offset, length })) {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new CastoreError(
        "invalid_argument",
        `Cannot read from blob: expected ${name} to be a non-negative safe integer, found ${value}`,
      );
    }
  }
  const start = Math.min(offset, size);
  return { start, end: start + Math.min(length, size - start) };
}
