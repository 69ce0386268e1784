import { z } from "zod";

/**
 * The schema of a key that is an integer: a number, as in TOML, or decimal digits, as in an address.
 *
 * @param options.min the least that it may be. Default: 0
 * @param options.max the most that it may be. Default: what a number holds exactly
 */
export function integerKey({
  min = 0,
  max = Number.MAX_SAFE_INTEGER,
}: {
  min?: number;
  max?: number;
} = {}): z.ZodType<number> {
  const error = `expected an integer from ${min} to ${max}`;
  const digits = z.string().regex(/^\d+$/).transform(Number);
  const integer = z.int({ error }).min(min, { error }).max(max, { error });
  return z.union([z.number(), digits], { error }).pipe(integer);
}

/** How long something may take, in milliseconds. */
export const TIMEOUT_MS: z.ZodType<number | undefined> = integerKey({
  min: 1,
  max: 2 ** 31 - 1, // timers take no more
}).optional();
