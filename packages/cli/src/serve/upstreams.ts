import { parseUpstream, parseUpstreams, type UpstreamOptions } from "@tvix/nar-bridge";
import type { ServiceOptions } from "../options/addresses.ts";
import type { UpstreamCacheOptions } from "../options/upstream-options.ts";
import { readTomlFile } from "../read-input-file.ts";

/**
 * Returns the upstreams of the options and of the file that describes the stores.
 *
 * @throws CastoreError `invalid_argument` naming what is wrong
 */
export async function readUpstreams(
  options: UpstreamCacheOptions & ServiceOptions,
): Promise<UpstreamOptions[]> {
  const given = options.upstream.map(parseUpstream);
  if (options.storeComposition === undefined) return given;
  const file = await readTomlFile("store composition", options.storeComposition);
  return [...given, ...(await parseUpstreams(file))];
}
