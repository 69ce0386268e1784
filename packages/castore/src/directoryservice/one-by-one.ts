import pLimit from "p-limit";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import type { DirectoryService } from "./directory-service.ts";

/** How many directories of a batch are read at the same time. */
const CONCURRENCY = 16;

/** Implements `getMany` for a service that has nothing better than single reads. */
export function getOneByOne(
  service: Pick<DirectoryService, "get">,
  digests: readonly B3Digest[],
  options?: AbortOptions,
): Promise<readonly (Directory | undefined)[]> {
  return pLimit(CONCURRENCY).map(digests, (digest) => service.get(digest, options));
}

/** Implements `hasMany` for a service that has nothing better than single reads. */
export function hasOneByOne(
  service: Pick<DirectoryService, "get">,
  digests: readonly B3Digest[],
  options?: AbortOptions,
): Promise<readonly boolean[]> {
  const has = async (digest: B3Digest) => (await service.get(digest, options)) !== undefined;
  return pLimit(CONCURRENCY).map(digests, has);
}
