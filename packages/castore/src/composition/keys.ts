/**
 * The keys of the types of services, as they stand in a table of TOML or in the query of an address, where each
 * value is a string.
 */
import { z } from "zod";

const reference = z.string().min(1);
const absolutePath = z.string().startsWith("/");

/** `memory` */
export const MEMORY_KEYS: z.ZodType<Record<string, never>> = z.strictObject({});

/** `pack` */
export const PACK_KEYS: z.ZodType<{
  path: string;
  zstd_level?: number | undefined;
  avg_chunk_size?: number | undefined;
  max_pack_size?: number | undefined;
}> = z.strictObject({
  path: absolutePath,
  zstd_level: z.coerce.number().int().min(1).max(22).optional(),
  avg_chunk_size: z.coerce.number().int().optional(),
  max_pack_size: z.coerce.number().int().min(1).optional(),
});

/** `sqlite`: without a path, a temporary one in memory */
export const SQLITE_KEYS: z.ZodType<{ path?: string | undefined }> = z.strictObject({
  path: absolutePath.optional(),
});

/** `grpc` */
export const GRPC_KEYS: z.ZodType<{ url: string }> = z.strictObject({ url: z.string() });

/** What is a near half and a far one, by name or address. */
export const HALVES_KEYS: z.ZodType<{ near: string; far: string }> = z.strictObject({
  near: reference,
  far: reference,
});
