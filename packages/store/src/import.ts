import { basename } from "node:path";
import {
  type AbortOptions,
  type BlobService,
  type DirectoryService,
  type ImportArchiveOptions,
  type ImportOptions,
  importArchive as importArchiveTree,
  importPath as importTree,
  type Node,
} from "@tvix/castore";
import { StoreError } from "./errors.ts";
import { ingestNar } from "./nar/ingest.ts";
import type { CalculatedNar } from "./nar/nar-calculation-service.ts";
import { NarHasher } from "./nar/nar-hasher.ts";
import { renderNar } from "./nar/renderer.ts";
import { NarWriter } from "./nar/writer.ts";
import { buildCaPath } from "./nix/build-path.ts";
import { encodeNixbase32 } from "./nix/nixbase32.ts";
import type { ReferenceCandidates, ReferenceScan } from "./nix/reference-scanner.ts";
import { type StorePath, validateStorePathName } from "./nix/store-path.ts";
import type { PathInfo } from "./pathinfo.ts";
import type { PathInfoService } from "./pathinfoservice/path-info-service.ts";

/**
 * Imports a path of the local file system, and registers it under the store path that
 * follows from its name, contents and references (a recursive SHA-256 content address). Each file is
 * read once: the NAR is hashed, and scanned for references, during the import.
 *
 * @param path a folder, a file or a symlink (which is not followed), as bytes where it is not UTF-8
 * @param options.name its name in the store. Default: the last name of `path`
 * @param options.references the hash parts of the store paths that the contents may refer to. Those
 *   found in contents, names or targets of symlinks become references. Default: none
 * @returns the registered PathInfo, once everything is durable. When it rejects, nothing was registered
 * @throws StoreError `invalid_argument` for a name that a store path cannot have; `not_found` if the
 *   contents refer to a store path without a PathInfo; whatever `importPath` of
 *   @tvix/castore and the services throw
 */
export async function importPath(
  path: string | Buffer,
  services: {
    blobService: BlobService;
    directoryService: DirectoryService;
    pathInfoService: PathInfoService;
  },
  options: Omit<ImportOptions, "visitor"> & {
    name?: string;
    references?: ReferenceCandidates;
  } = {},
): Promise<PathInfo> {
  const { name = basename(path.toString()), references: candidates, ...importOptions } = options;
  validateStorePathName(name);
  const nar = new ImportedNar(candidates);
  const visitor = new NarWriter((bytes) => nar.update(bytes));
  const node = await importTree(path, services, { ...importOptions, visitor });
  visitor.finish();
  return await register(name, node, nar, services.pathInfoService, options);
}

/**
 * Imports the contents of a tar archive, as `importArchive` of @tvix/castore does, and registers them as
 * {@link importPath} registers a folder. The archive is read once. The stored tree is then read to hash its NAR, as the
 * order of an archive differs from that of a NAR.
 *
 * @param archive the archive, or the path of a file that it is in, as bytes where it is not UTF-8
 * @param options.name its name in the store
 * @param options.references as with {@link importPath}
 * @returns the registered PathInfo, once everything is durable. When it rejects, nothing was registered
 * @throws StoreError `invalid_argument` for a name that a store path cannot have; `not_found` if the
 *   contents refer to a store path without a PathInfo; whatever `importArchive` of
 *   @tvix/castore and the services throw
 */
export async function importArchive(
  archive: string | Buffer | AsyncIterable<Uint8Array>,
  services: {
    blobService: BlobService;
    directoryService: DirectoryService;
    pathInfoService: PathInfoService;
  },
  options: ImportArchiveOptions & { name: string; references?: ReferenceCandidates },
): Promise<PathInfo> {
  const { name, references: candidates, ...importOptions } = options;
  validateStorePathName(name);
  const node = await importArchiveTree(archive, services, importOptions);
  const nar = new ImportedNar(candidates);
  for await (const bytes of renderNar(node, services, importOptions)) nar.update(bytes);
  return await register(name, node, nar, services.pathInfoService, options);
}

/** Computes size, hash and references from the bytes of a NAR. */
class ImportedNar {
  readonly #hasher = new NarHasher();
  readonly #scan: ReferenceScan | undefined;

  constructor(candidates: ReferenceCandidates | undefined) {
    this.#scan = candidates?.openScan();
  }

  update(bytes: Uint8Array): void {
    this.#hasher.update(bytes);
    this.#scan?.update(bytes);
  }

  /** Returns the result; called once, after the last byte. The references are hash parts. */
  finish(): CalculatedNar & { readonly references: readonly Uint8Array[] } {
    return { ...this.#hasher.digest(), references: this.#scan?.found() ?? [] };
  }
}

/** Registers durable contents under the store path that follows from them. */
async function register(
  name: string,
  node: Node,
  nar: ImportedNar,
  pathInfoService: PathInfoService,
  { signal }: AbortOptions,
): Promise<PathInfo> {
  const { narSize, narSha256, references: hashParts } = nar.finish();
  const ca = { kind: "nar", hash: { algorithm: "sha256", digest: narSha256 } } as const;
  const references = await findStorePaths(hashParts, pathInfoService, { signal });
  const pathInfo: PathInfo = {
    storePath: buildCaPath(name, ca, {
      references: references.map((reference) => reference.toAbsolutePath()),
    }),
    node,
    references,
    narSize,
    narSha256,
    signatures: [],
    ca,
  };
  return await pathInfoService.put(pathInfo, { signal });
}

/**
 * Imports a NAR, and registers it under a given store path.
 *
 * @param stream the NAR, uncompressed
 * @param pathInfo the PathInfo without its node: the NAR has to match its hash, size and content address
 * @returns the registered PathInfo, once everything is durable. When it rejects, nothing was registered
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
  // The content address of a path that refers to itself covers its NAR with those references removed.
  const refersToItself = references.some((reference) => `${reference}` === `${storePath}`);
  const expectedCa = refersToItself ? undefined : ca;
  const { node } = await ingestNar(stream, services, { ...options, expected, expectedCa });
  return await services.pathInfoService.put({ ...pathInfo, node }, options);
}

/**
 * Returns the store paths of hash parts.
 *
 * @throws StoreError `not_found` unless all of them are registered: a PathInfo refers to registered store paths only
 */
async function findStorePaths(
  hashParts: readonly Uint8Array[],
  pathInfoService: PathInfoService,
  options: AbortOptions,
): Promise<StorePath[]> {
  const pathInfos = await pathInfoService.getMany(hashParts, options);
  return pathInfos.map((pathInfo, i) => {
    if (pathInfo !== undefined) return pathInfo.storePath;
    throw new StoreError(
      "not_found",
      `Cannot import: the contents refer to "${encodeNixbase32(hashParts[i]!)}": expected a PathInfo of that hash part, found none`,
    );
  });
}
