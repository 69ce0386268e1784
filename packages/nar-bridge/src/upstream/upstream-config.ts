import { CastoreError, parseServiceAddress, refusalOf, withKeys } from "@tvix/castore";
import { integerKey } from "@tvix/castore/keys";
import { parseToml, type TomlFile, tomlError } from "@tvix/castore/toml";
import { splitKeys, VerifyingKey } from "@tvix/store";
import { BINARY_CACHE_KEYS } from "@tvix/store/keys";
import { z } from "zod";
import type { UpstreamOptions } from "./upstreams.ts";

/** Keys of an upstream, in TOML and in the query of an address. */
const UPSTREAM = z
  .strictObject({ ...BINARY_CACHE_KEYS, priority: integerKey({ max: 2 ** 31 - 1 }).optional() })
  .transform(({ base_url, public_keys, priority, timeout_ms, token_file }) => ({
    baseUrl: base_url,
    publicKeys: public_keys?.map((key) => VerifyingKey.parse(key)),
    priority,
    timeoutMs: timeout_ms,
    tokenFile: token_file,
  }));

/** The tables of all upstreams. */
const UPSTREAMS = z.array(UPSTREAM);

/**
 * Parses the address of an upstream, such as `https://cache.nixos.org?priority=10`. Keys of its query are
 * `trusted-public-keys`, separated by spaces, `priority`, `timeout_ms` and `token_file`.
 *
 * @throws CastoreError `invalid_argument` for any other address or key
 */
export function parseUpstream(text: string): UpstreamOptions {
  const address = parseServiceAddress(text, ["https", "http"]);
  const { "trusted-public-keys": keys, ...query } = address.query;
  const [base_url] = text.split("?", 1);
  const config = withKeys(
    { ...address, query },
    { base_url, public_keys: keys === undefined ? undefined : splitKeys(keys) },
  );
  const hidden = ["base_url", "public_keys"];
  const { data, error } = UPSTREAM.safeParse(config);
  if (data !== undefined) return data;
  const refusal = refusalOf(error, UPSTREAM, config, hidden);
  const reason = refusal.reason.replace(/"public_keys[.]\d+"/, '"trusted-public-keys"');
  throw new CastoreError("invalid_argument", `Cannot use upstream "${address.shown}": ${reason}`);
}

/**
 * Parses the tables `[[upstreams]]` of a TOML file, with the keys `base_url`, `public_keys`, `priority`, `timeout_ms` and
 * `token_file`.
 *
 * @throws CastoreError `invalid_argument` for anything else, with line and column
 */
export async function parseUpstreams(file: TomlFile): Promise<UpstreamOptions[]> {
  const { upstreams = [] } = parseToml(file);
  const result = UPSTREAMS.safeParse(upstreams);
  if (result.success) return result.data;
  const { path, reason } = refusalOf(result.error, UPSTREAMS, upstreams);
  throw await tomlError(file, ["upstreams", ...path], `[[upstreams]]: ${reason}`);
}
