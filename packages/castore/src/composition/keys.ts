import { z } from "zod";

/** The keys of a `pack:` address. */
export const PACK_KEYS: z.ZodType<{
  zstd_level?: number | undefined;
  avg_chunk_size?: number | undefined;
  max_pack_size?: number | undefined;
}> = z.strictObject({
  zstd_level: z.coerce.number().int().min(1).max(22).optional(),
  avg_chunk_size: z.coerce.number().int().optional(),
  max_pack_size: z.coerce.number().int().min(1).optional(),
});
