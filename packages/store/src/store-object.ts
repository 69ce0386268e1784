import {
  type AbortOptions,
  type BlobService,
  type DirectoryService,
  descendTo,
  type Node,
  quoteBytes,
} from "@tvix/castore";
import { quoteText, StoreError } from "./errors.ts";
import { formatObjectName, type ObjectName, type RootName } from "./object-name.ts";
import type { PathInfo } from "./pathinfo.ts";
import type { PathInfoService } from "./pathinfoservice/path-info-service.ts";

/** Something in a store. */
export interface StoreObject {
  /** Its name, in which the store path has replaced a hash part alone. */
  readonly name: ObjectName;
  /** The PathInfo of the store path that it is, or is below; `undefined` if a digest names the root. */
  readonly pathInfo: PathInfo | undefined;
  /** What it is. */
  readonly node: Node;
}

/** Where objects are looked up. */
export interface ObjectSources {
  readonly blobService: Pick<BlobService, "statMany">;
  readonly directoryService: DirectoryService;
  readonly pathInfoService: Pick<PathInfoService, "get">;
}

/**
 * Finds something in a store by its name. A digest is looked up as that of a directory first, then as that of a blob,
 * which becomes a file that is not executable. Symlinks are not followed.
 *
 * @throws StoreError `not_found` if it is not there, which says how far the path leads; whatever the services throw:
 *   `data_loss` if a directory on the way is missing
 */
export async function findObject(
  name: ObjectName,
  sources: ObjectSources,
  options?: AbortOptions,
): Promise<StoreObject> {
  const root = await findRoot(name, sources, options);
  const node = await descendTo(sources.directoryService, root.node, name.path, options);
  if (node === undefined) throw await missingBelow(root, sources, options);
  return { ...root, node };
}

/** Finds the root of a name. */
async function findRoot(
  name: ObjectName,
  sources: ObjectSources,
  options?: AbortOptions,
): Promise<StoreObject> {
  const { root } = name;
  if (root.type === "digest") {
    return { name, pathInfo: undefined, node: await findDigest(name, root, sources, options) };
  }
  const pathInfo = checkFound(name, await sources.pathInfoService.get(hashPartOf(root), options));
  const { storePath, node } = pathInfo;
  return { name: { ...name, root: { type: "store path", storePath } }, pathInfo, node };
}

/**
 * Finds the PathInfos of store paths by their names.
 *
 * @returns for each name the PathInfo, or why there is none: a StoreError `not_found`, or `invalid_argument` for what is no
 *   store path, such as a path below one
 */
export async function findPathInfos(
  names: readonly ObjectName[],
  pathInfoService: Pick<PathInfoService, "getMany">,
  options?: AbortOptions,
): Promise<(PathInfo | StoreError)[]> {
  const roots = names.map(({ root }) => root).filter((root) => root.type !== "digest");
  const found = (await pathInfoService.getMany(roots.map(hashPartOf), options)).values();
  return names.map((name) => {
    try {
      const pathInfo = name.root.type === "digest" ? undefined : found.next().value;
      hashPartOfName(name, "look up");
      return checkFound(name, pathInfo);
    } catch (error) {
      if (error instanceof StoreError) return error;
      throw error;
    }
  });
}

/**
 * Returns the hash part, 20 bytes, of the store path that a name stands for.
 *
 * @param action what cannot be done with another name, such as "look up"
 * @throws StoreError `invalid_argument` for a digest, and for a path below a store path
 */
export function hashPartOfName(name: ObjectName, action: string): Uint8Array {
  const { root, path } = name;
  if (root.type !== "digest" && path.length === 0) return hashPartOf(root);
  const found = root.type === "digest" ? "a digest" : "a path below one";
  throw new StoreError(
    "invalid_argument",
    `Cannot ${action} ${quoteText(formatObjectName(name))}: expected a store path or its hash part, found ${found}`,
  );
}

function hashPartOf(root: Exclude<RootName, { readonly type: "digest" }>): Uint8Array {
  return root.type === "hash part" ? root.hashPart : root.storePath.hashPart;
}

/** @throws StoreError `not_found` if it is not there, or has another name */
function checkFound(name: ObjectName, pathInfo: PathInfo | undefined): PathInfo {
  if (pathInfo === undefined) throw refusal(name, "the store has no such store path");
  const { root } = name;
  const { storePath } = pathInfo;
  if (root.type === "store path" && root.storePath.name !== storePath.name) {
    throw refusal(name, `the store has "${storePath.toAbsolutePath()}"`);
  }
  return pathInfo;
}

async function findDigest(
  name: ObjectName,
  { digest }: RootName & { type: "digest" },
  { blobService, directoryService }: ObjectSources,
  options?: AbortOptions,
): Promise<Node> {
  const directory = await directoryService.get(digest, options);
  if (directory !== undefined) return { type: "directory", digest, size: directory.size };
  const [stat] = await blobService.statMany([digest], options);
  if (stat !== undefined)
    return { type: "file", digest, size: BigInt(stat.size), executable: false };
  throw refusal(name, "the store has neither a directory nor a blob of this digest");
}

/** Returns the error for a path that leads to nothing. */
async function missingBelow(
  { name: { root, path }, node: rootNode }: StoreObject,
  { directoryService }: ObjectSources,
  options?: AbortOptions,
): Promise<StoreError> {
  const name = { root, path };
  let above = "";
  for (let depth = 0; ; depth++) {
    const folder = { root, path: path.slice(0, depth) };
    const node = await descendTo(directoryService, rootNode, folder.path, options);
    if (node === undefined) {
      return refusal(name, `${above} has no entry ${quoteBytes(path[depth - 1]!)}`);
    }
    above = quoteText(formatObjectName(folder));
    if (node.type === "file") return refusal(name, `${above} is a file`);
    if (node.type === "symlink") {
      const target = quoteText(Buffer.from(node.target).toString());
      return refusal(name, `${above} is a symlink to ${target}, which is not followed`);
    }
  }
}

function refusal(name: ObjectName, reason: string): StoreError {
  return new StoreError("not_found", `Cannot find ${quoteText(formatObjectName(name))}: ${reason}`);
}
