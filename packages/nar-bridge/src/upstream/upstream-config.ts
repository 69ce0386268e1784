import { CastoreError, parseServiceAddress, withKeys } from "@tvix/castore";
import { integerKey } from "@tvix/castore/keys";
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

/**
 * Parses the address of an upstream, such as `https://cache.nixos.org?priority=10`. Keys of its query are
 * `trusted-public-keys`, separated by spaces, `priority`, `timeout_ms` and `token_file`.
 *
 * @throws CastoreError `invalid_argument` for any other address or key
 */
export function parseUpstream(text: string): UpstreamOptions {
  const address = parseServiceAddress(text);
  const { "trusted-public-keys": keys, ...query } = address.query;
  const [base_url] = text.split("?", 1);
  const config = withKeys(
    { ...address, query },
    { base_url, public_keys: keys === undefined ? undefined : splitKeys(keys) },
  );
  return parse(config, `upstream "${address.shown}"`);
}

/**
 * Parses the tables `[[upstreams]]` of TOML, with the keys `base_url`, `public_keys`, `priority`, `timeout_ms` and
 * `token_file`.
 *
 * @throws CastoreError `invalid_argument` for anything else
 */
export function parseUpstreams(tables: unknown): UpstreamOptions[] {
  const list = z.array(z.unknown()).safeParse(tables);
  if (!list.success)
    throw refusal("[[upstreams]]", "expected a list of tables, found something else");
  return list.data.map((table, i) => parse(table, `[[upstreams]] number ${i + 1}`));
}

function parse(config: unknown, label: string): UpstreamOptions {
  const result = UPSTREAM.safeParse(config);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = issue?.path.length ? `${issue.path.join(".")}: ` : "";
  throw refusal(label, `${where}${issue?.message}`);
}

function refusal(label: string, reason: string): CastoreError {
  return new CastoreError("invalid_argument", `Cannot use ${label}: ${reason}`);
}
