import type { AbortOptions } from "@tvix/castore";
import {
  findPathInfos,
  findPaths,
  type ObjectName,
  type PathInfo,
  type PathInfoService,
  StoreError,
} from "@tvix/store";
import { reportFailure } from "../run.ts";
import { objectArgument } from "./object-argument.ts";
import { forEachArgument } from "./with-services.ts";

/**
 * Looks up the store paths that arguments name. Those that are not found, or malformed, are reported on stderr, and the
 * process exits with 1 at its end.
 *
 * @returns for each argument the PathInfo, `undefined` if there is none
 */
export async function lookUpStorePaths(
  args: readonly string[],
  pathInfoService: PathInfoService,
  options: AbortOptions,
): Promise<(PathInfo | undefined)[]> {
  const names = new Map<string, ObjectName>();
  await forEachArgument(args, async (argument) => {
    names.set(argument, objectArgument(argument));
  });
  const found = await findPathInfos([...names.values()], pathInfoService, options);
  const byArgument = new Map([...names.keys()].map((argument, i) => [argument, found[i]!]));
  return args.map((argument) => {
    const pathInfo = byArgument.get(argument);
    if (!(pathInfo instanceof StoreError)) return pathInfo;
    reportFailure(pathInfo);
    return undefined;
  });
}

/**
 * Finds the closure of store paths: each stands behind those that it refers to.
 *
 * @throws StoreError `not_found` if the store lacks one that another refers to
 */
export async function findClosure(
  paths: readonly PathInfo[],
  pathInfoService: PathInfoService,
  options: AbortOptions,
): Promise<PathInfo[]> {
  const source = {
    name: "the store",
    getMany: (hashParts: readonly Uint8Array[], options?: AbortOptions) =>
      pathInfoService.getMany(hashParts, options),
  };
  const hashParts = paths.map(({ storePath }) => storePath.hashPart);
  const action = "find a closure";
  return await findPaths(source, hashParts, { ...options, closure: true, action });
}
