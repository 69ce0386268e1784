import {
  type AbortOptions,
  type DirectoryService,
  descendTo,
  mapInParallel,
  type Node,
  pathComponent,
} from "@tvix/castore";
import type { SideObjects } from "./side-objects.ts";

/** Where a store path has debug information, as Nix looks for it: `<2 digits of the build id>/<the other 38>.debug`. */
const FOLDER = ["lib", "debug", ".build-id"];

/** How many entries are stored at the same time. */
const PUTS = 16;

/** Returns the path of the entry that tells where the debug information of a build id is, in lower-case hexadecimal. */
export function debugInfoPath(buildId: string): string[] {
  return ["debuginfo", buildId];
}

/** Where directories are found, and where entries are stored. */
export interface DebugInfoSources {
  readonly directoryService: DirectoryService;
  readonly sideObjects: SideObjects;
}

/**
 * Stores where the debug information in a store path is, by build id, unless that is stored already.
 *
 * @param url that of its NAR, relative to the cache
 * @throws CastoreError `data_loss` if a directory is missing
 */
export async function indexDebugInfo(
  root: Node,
  url: string,
  { directoryService, sideObjects }: DebugInfoSources,
  options?: AbortOptions,
): Promise<void> {
  if (root.type !== "directory") return;
  const entries = await Array.fromAsync(debugFiles(root, directoryService, options));
  if (entries.length === 0) return;
  const put = async ({ buildId, member }: DebugFile, options: AbortOptions) => {
    const path = debugInfoPath(buildId);
    if (await sideObjects.head(path, options)) return;
    const text = JSON.stringify({ archive: `../${url}`, member });
    await sideObjects.put(path, Buffer.from(text), options);
  };
  await mapInParallel(entries, PUTS, put, options);
}

/** A file of debug information. */
interface DebugFile {
  readonly buildId: string;
  /** Its path in the store path. */
  readonly member: string;
}

async function* debugFiles(
  root: Node,
  directoryService: DirectoryService,
  options?: AbortOptions,
): AsyncGenerator<DebugFile> {
  for (const [first, folder] of await entriesAt(root, FOLDER, directoryService, options)) {
    if (!/^[0-9a-f]{2}$/.test(first)) continue;
    for (const [name, node] of await entriesAt(folder, [], directoryService, options)) {
      const [, rest] = /^([0-9a-f]{38})\.debug$/.exec(name) ?? [];
      if (rest === undefined || node.type !== "file") continue;
      yield { buildId: first + rest, member: [...FOLDER, first, name].join("/") };
    }
  }
}

/** Returns what a folder has, by name; nothing if there is no folder at this path. */
async function entriesAt(
  root: Node,
  path: readonly string[],
  directoryService: DirectoryService,
  options?: AbortOptions,
): Promise<(readonly [name: string, node: Node])[]> {
  const node = await descendTo(directoryService, root, path.map(pathComponent), options);
  if (node?.type !== "directory") return [];
  const directory = await directoryService.get(node.digest, options);
  return (directory?.entries ?? []).map(
    ({ name, node }) => [Buffer.from(name).toString("latin1"), node] as const,
  );
}
