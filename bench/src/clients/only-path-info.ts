import type { PathInfo, PathInfoService } from "@tvix/store";

/** The PathInfo of a store that has one alone. */
export async function onlyPathInfo(service: PathInfoService): Promise<PathInfo> {
  const found = await Array.fromAsync(service.list());
  if (found.length === 1) return found[0]!;
  throw new Error(`Cannot choose a store path: expected one, found ${found.length}`);
}
