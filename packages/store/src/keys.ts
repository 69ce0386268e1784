/** The keys of the types of PathInfo services, as they stand in TOML or in the query of an address. */
import { z } from "zod";

/** `lru` */
export const LRU_KEYS: z.ZodType<{ capacity: number }> = z.strictObject({
  capacity: z.coerce.number().int().min(1),
});

/** `keyfile-signing` */
export const KEYFILE_SIGNING_KEYS: z.ZodType<{ inner: string; keyfile: string }> = z.strictObject({
  inner: z.string().min(1),
  keyfile: z.string().startsWith("/"),
});
