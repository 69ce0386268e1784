import { z } from "zod";
import { integerKey } from "../address/integer-key.ts";

/** The options of stores that have none. */
export const NO_OPTIONS: z.ZodType<Record<string, never>> = z.strictObject({});

/** How long something may take, in milliseconds. */
export const TIMEOUT_MS: z.ZodType<number | undefined> = integerKey({
  min: 1,
  max: 2 ** 31 - 1, // timers take no more
}).optional();

/** The options of a store over HTTP. */
export const HTTP_OPTIONS: z.ZodType<{ timeout_ms?: number | undefined }> = z.strictObject({
  timeout_ms: TIMEOUT_MS,
});
