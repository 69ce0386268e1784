/** Defines the keys of each type of PathInfo service, in TOML and in the query of an address. */
import { integerKey } from "@tvix/castore/keys";
import { z } from "zod";
import { VerifyingKey } from "./nix/signature.ts";

/** What a public key looks like, for messages. */
const PUBLIC_KEY = "expected a name, a colon, and 32 bytes in base64";

/** Keys of `lru`. */
export const LRU_KEYS: z.ZodType<{ capacity: number }> = z.strictObject({
  capacity: integerKey({ min: 1 }),
});

/** Keys of `keyfile-signing`. */
export const KEYFILE_SIGNING_KEYS: z.ZodType<{ inner: string; keyfile: string }> = z.strictObject({
  inner: z.string().min(1),
  keyfile: z.string().startsWith("/"),
});

/** Keys of a binary cache of Nix. */
export const BINARY_CACHE_KEYS: {
  base_url: z.ZodType<string>;
  public_keys: z.ZodType<string[] | undefined>;
  timeout_ms: z.ZodType<number | undefined>;
  token_file: z.ZodType<string | undefined>;
} = {
  base_url: z
    .url({ protocol: /^https?$/, error: "expected a URL with http: or https:" })
    .refine(isBare, {
      error: "expected no credentials, no query and no fragment", // messages show it
    }),
  public_keys: z.array(z.string().refine(isPublicKey, { error: PUBLIC_KEY })).optional(), // an empty list trusts nobody
  timeout_ms: integerKey({ min: 1, max: 600_000 }).optional(),
  token_file: z.string().startsWith("/").optional(),
};

/** Keys of `nix`. */
export const NIX_KEYS: z.ZodType<{
  base_url: string;
  blob_service: string;
  directory_service: string;
  public_keys?: string[] | undefined;
  timeout_ms?: number | undefined;
  token_file?: string | undefined;
}> = z.strictObject({
  ...BINARY_CACHE_KEYS,
  blob_service: z.string().min(1).default("default"),
  directory_service: z.string().min(1).default("default"),
});

function isPublicKey(text: string): boolean {
  try {
    return Boolean(VerifyingKey.parse(text));
  } catch {
    return false;
  }
}

function isBare(text: string): boolean {
  if (!URL.canParse(text)) return true; // the URL check refuses it
  const { username, password, search, hash } = new URL(text);
  return [username, password, search, hash].every((part) => part === "");
}
