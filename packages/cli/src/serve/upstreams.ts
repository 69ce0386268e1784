import type { TomlFile } from "@tvix/castore/toml";
import { parseUpstream, parseUpstreams, type UpstreamOptions } from "@tvix/nar-bridge";
import type { UpstreamCacheOptions } from "../options/upstream-options.ts";

/**
 * Returns the upstreams of the options and of the file that describes the stores, if there is one.
 *
 * @throws CastoreError `invalid_argument` naming what is wrong
 */
export async function parseAllUpstreams(
  { upstream }: UpstreamCacheOptions,
  compositionFile: TomlFile | undefined,
): Promise<UpstreamOptions[]> {
  const given = upstream.map(parseUpstream);
  return compositionFile === undefined
    ? given
    : [...given, ...(await parseUpstreams(compositionFile))];
}
