import { basename } from "node:path";
import {
  type AbortOptions,
  type BlobService,
  type DirectoryService,
  type ImportOptions,
  importPath as importTree,
} from "@tvix/castore";
import { ingestNar } from "./nar/ingest.ts";
import { NarHasher } from "./nar/nar-hasher.ts";
import { NarWriter } from "./nar/writer.ts";
import { buildCaPath } from "./nix/build-path.ts";
import { validateStorePathName } from "./nix/store-path.ts";
import type { PathInfo } from "./pathinfo.ts";
import type { PathInfoService } from "./pathinfoservice/path-info-service.ts";

/**
 * Stores what is at a path of the local file system, and registers it under the store path that
 * follows from its name and contents (a recursive SHA-256 content address, without references). Each
 * file is read once: the NAR is hashed while it is imported.
 *
 * @param path a folder, a file or a symlink (which is not followed)
 * @param options.name its name in the store. Default: the last name of `path`
 * @returns what was registered, once all of it is durable. When it rejects, nothing was registered
 * @throws StoreError `invalid_argument` for a name that a store path cannot have; whatever
 *   `importPath` of @tvix/castore and the services throw
 */
export async function importPath(
  path: string,
  services: {
    blobService: BlobService;
    directoryService: DirectoryService;
    pathInfoService: PathInfoService;
  },
  options: Omit<ImportOptions, "visitor"> & { name?: string } = {},
): Promise<PathInfo> {
  const { name = basename(path), ...importOptions } = options;
  validateStorePathName(name);
  const nar = new NarHasher();
  const visitor = new NarWriter((bytes) => nar.update(bytes));
  const node = await importTree(path, services, { ...importOptions, visitor });
  visitor.finish();
  const { narSize, narSha256 } = nar.digest();
  const ca = { kind: "nar", hash: { algorithm: "sha256", digest: narSha256 } } as const;
  const pathInfo: PathInfo = {
    storePath: buildCaPath(name, ca),
    node,
    references: [],
    narSize,
    narSha256,
    signatures: [],
    ca,
  };
  return await services.pathInfoService.put(pathInfo, { signal: options.signal });
}

/**
 * Stores the contents of a NAR, and registers them as what they are said to be.
 *
 * @param stream the NAR, not compressed
 * @param pathInfo everything about the store path but its contents, which the NAR has to match in hash, size and
 *   content address
 * @returns what was registered, once all of it is durable. When it rejects, nothing was registered
 * @throws whatever {@link ingestNar} and the services throw
 */
export async function importNar(
  stream: AsyncIterable<Uint8Array>,
  services: {
    blobService: BlobService;
    directoryService: DirectoryService;
    pathInfoService: PathInfoService;
  },
  pathInfo: Omit<PathInfo, "node">,
  options?: AbortOptions,
): Promise<PathInfo> {
  const { storePath, references, narSize, narSha256, ca } = pathInfo;
  const expected = { narSize, narSha256 };
  // What refers to itself has the hash of its NAR with all such references left out.
  const refersToItself = references.some((reference) => `${reference}` === `${storePath}`);
  const expectedCa = refersToItself ? undefined : ca;
  const { node } = await ingestNar(stream, services, { ...options, expected, expectedCa });
  return await services.pathInfoService.put({ ...pathInfo, node }, options);
}
