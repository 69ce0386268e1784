import { z } from "zod";

/** The options of stores that have none. */
export const NO_OPTIONS: z.ZodType<Record<string, never>> = z.strictObject({});
