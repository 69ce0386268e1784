/**
 * Defines the keys of each type of service, in TOML and in the query of an address, where each value is a string.
 */
import { z } from "zod";
import { integerKey, TIMEOUT_MS } from "../address/integer-key.ts";
import { CACHE_MODES, type CacheMode } from "../cache/origin-cache.ts";

export { integerKey } from "../address/integer-key.ts";

const reference = z.string().min(1);
const absolutePath = z.string().startsWith("/");
const zstdLevel = integerKey({ min: 1, max: 22 });

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
  zstd_level: zstdLevel.optional(),
  avg_chunk_size: integerKey().optional(),
  max_pack_size: integerKey({ min: 1 }).optional(),
});

const objectStore = {
  object_store_url: z.string().min(1),
  object_store_options: z.record(z.string(), z.unknown()).optional(),
};

/** `objectstore` of blobs */
export const OBJECT_STORE_BLOB_KEYS: z.ZodType<{
  object_store_url: string;
  object_store_options?: Record<string, unknown> | undefined;
  avg_chunk_size?: number | undefined;
  zstd_level?: number | undefined;
}> = z.strictObject({
  ...objectStore,
  avg_chunk_size: integerKey().optional(),
  zstd_level: zstdLevel.optional(),
});

/** `objectstore` of directories */
export const OBJECT_STORE_DIRECTORY_KEYS: z.ZodType<{
  object_store_url: string;
  object_store_options?: Record<string, unknown> | undefined;
}> = z.strictObject(objectStore);

/** `sqlite`: without a path, a temporary one in memory */
export const SQLITE_KEYS: z.ZodType<{ path?: string | undefined }> = z.strictObject({
  path: absolutePath.optional(),
});

/** `grpc` */
export const GRPC_KEYS: z.ZodType<{
  url: string;
  keepalive_ms?: number | undefined;
  timeout_ms?: number | undefined;
  retry_ms?: number | undefined;
  token_file?: string | undefined;
  tls_ca?: string | undefined;
  tls_cert?: string | undefined;
  tls_key?: string | undefined;
}> = z
  .strictObject({
    url: z.string(),
    keepalive_ms: TIMEOUT_MS,
    timeout_ms: TIMEOUT_MS,
    retry_ms: integerKey({ max: 2 ** 31 - 1 }).optional(),
    token_file: absolutePath.optional(),
    tls_ca: absolutePath.optional(),
    tls_cert: absolutePath.optional(),
    tls_key: absolutePath.optional(),
  })
  .refine(({ tls_cert, tls_key }) => (tls_cert === undefined) === (tls_key === undefined), {
    error: "expected tls_cert and tls_key, found one without the other",
  })
  .refine(({ url, tls_ca, tls_cert }) => url.startsWith("grpc+https:") || !(tls_ca ?? tls_cert), {
    error: "expected tls_ca, tls_cert and tls_key with grpc+https only",
  });

/** `combined` and `cache`: a local store and an origin, each by name or address. tvix calls them local and remote. */
export const CACHE_KEYS: z.ZodType<{
  near: string;
  far: string;
  mode?: CacheMode | undefined;
  near_read_timeout_ms?: number | undefined;
  near_write_timeout_ms?: number | undefined;
}> = z.preprocess(
  renameKeys({ local: "near", remote: "far" }),
  z.strictObject({
    near: reference,
    far: reference,
    mode: z.enum(CACHE_MODES).optional(),
    near_read_timeout_ms: TIMEOUT_MS,
    near_write_timeout_ms: TIMEOUT_MS,
  }),
);

/** Renames keys, unless both names are present. */
function renameKeys(names: Readonly<Record<string, string>>): (keys: unknown) => unknown {
  return (keys) => {
    const entries = Object.entries(keys as object);
    const given = new Set(entries.map(([key]) => key));
    return Object.fromEntries(
      entries.map(([key, value]) => {
        const other = Object.hasOwn(names, key) ? names[key]! : key;
        return [given.has(other) ? key : other, value];
      }),
    );
  };
}
