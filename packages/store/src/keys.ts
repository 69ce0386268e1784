/** The keys of the types of PathInfo services, as they stand in TOML or in the query of an address. */
import { integerKey } from "@tvix/castore/keys";
import { z } from "zod";

/** `lru` */
export const LRU_KEYS: z.ZodType<{ capacity: number }> = z.strictObject({
  capacity: integerKey({ min: 1 }),
});

/** `keyfile-signing` */
export const KEYFILE_SIGNING_KEYS: z.ZodType<{ inner: string; keyfile: string }> = z.strictObject({
  inner: z.string().min(1),
  keyfile: z.string().startsWith("/"),
});

/** `nix` */
export const NIX_KEYS: z.ZodType<{
  base_url: string;
  blob_service: string;
  directory_service: string;
  public_keys?: string[] | undefined;
  timeout_ms?: number | undefined;
}> = z.strictObject({
  base_url: z.url({ protocol: /^https?$/ }).refine(isBare, {
    error: "expected no credentials, no query and no fragment", // it is in messages
  }),
  blob_service: z.string().min(1).default("default"),
  directory_service: z.string().min(1).default("default"),
  public_keys: z.array(z.string()).optional(), // an empty list trusts nobody
  timeout_ms: integerKey({ min: 1, max: 600_000 }).optional(),
});

function isBare(text: string): boolean {
  if (!URL.canParse(text)) return true; // which is refused already
  const { username, password, search, hash } = new URL(text);
  return [username, password, search, hash].every((part) => part === "");
}
