import { setImmediate as yieldToEvents } from "node:timers/promises";
import { quoteBytes } from "../bytes.ts";
import type { B3Digest } from "../digest.ts";
import type { Directory } from "../directory.ts";
import { CastoreError } from "../errors.ts";
import type { Node } from "../node.ts";
import type { AbortOptions } from "../options.ts";
import type { PathComponent } from "../path.ts";
import type { DirectoryService } from "./directory-service.ts";

/**
 * Walks a directory and everything below it, breadth first, each once. For services whose backend has
 * no better way.
 *
 * @param get looks up one directory
 * @returns nothing if the root is absent
 * @throws CastoreError `data_loss` if a directory below the root is missing or not of the size stated
 */
export async function* traverseDirectory(
  get: (digest: B3Digest) => Promise<Directory | undefined>,
  root: B3Digest,
  options?: AbortOptions,
): AsyncGenerator<Directory> {
  options?.signal?.throwIfAborted();
  let directory = await get(root);
  if (directory === undefined) return;
  const seen = new Set([root.hex]);
  /** What was referred to and not visited yet: digests and names, not directories. */
  let ahead: Reference[] = [];
  let visited = 0;
  for (let parent = root; ; ) {
    yield directory;
    for (const { name, node } of directory.entries) {
      if (node.type !== "directory" || seen.has(node.digest.hex)) continue;
      seen.add(node.digest.hex);
      ahead.push({ parent, name, digest: node.digest, size: node.size });
    }
    if (visited === ahead.length) return;
    const next = ahead[visited]!;
    visited += 1;
    if (visited === LOOK_BACK) {
      ahead = ahead.slice(visited);
      visited = 0;
      await yieldToEvents(); // local backends answer at once: others get their turn here
    }
    options?.signal?.throwIfAborted();
    directory = expectChild(root, next, await get(next.digest));
    parent = next.digest;
  }
}

/** How many visited references are kept before they are dropped together. */
const LOOK_BACK = 256;

interface Reference {
  readonly parent: B3Digest;
  readonly name: PathComponent;
  readonly digest: B3Digest;
  readonly size: bigint;
}

function expectChild(
  root: B3Digest,
  { parent, name, digest, size }: Reference,
  child: Directory | undefined,
): Directory {
  if (child?.size === size) return child;
  const found =
    child === undefined ? "which is missing" : `stating size ${size}, found ${child.size}`;
  throw new CastoreError(
    "data_loss",
    `Cannot read the tree below ${root}: entry ${quoteBytes(name)} of directory ${parent} refers to ` +
      `${digest}, ${found}`,
  );
}

/**
 * Walks down from a node along a path of names.
 *
 * @returns the node at the end, the root itself for an empty path; `undefined` if a name is not there
 *   or stands for something that is no directory
 * @throws CastoreError `data_loss` if a directory on the way is missing
 */
export async function descendTo(
  directoryService: DirectoryService,
  root: Node,
  path: readonly PathComponent[],
  options?: AbortOptions,
): Promise<Node | undefined> {
  let node: Node | undefined = root;
  for (const name of path) {
    if (node?.type !== "directory") return undefined;
    const directory: Directory | undefined = await directoryService.get(node.digest, options);
    if (directory === undefined) {
      throw new CastoreError("data_loss", `Cannot walk down: directory ${node.digest} is missing`);
    }
    node = directory.get(name);
  }
  return node;
}
