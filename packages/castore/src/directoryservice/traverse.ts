import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { quoteBytes } from "../bytes/byte-string.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import type { Node } from "../model/node.ts";
import type { PathComponent } from "../model/path.ts";
import type { DirectoryService } from "./directory-service.ts";

/**
 * Walks a directory and everything below it, breadth first, each once. For services whose backend has
 * no better way.
 *
 * @param get looks up one directory
 * @returns nothing if the root is absent
 * @throws CastoreError `data_loss` if a directory below the root is missing, or not of the size that
 *   every reference to it states
 */
export async function* traverseDirectory(
  get: (digest: B3Digest) => Promise<Directory | undefined>,
  root: B3Digest,
  options?: AbortOptions,
): AsyncGenerator<Directory> {
  options?.signal?.throwIfAborted();
  let directory = await get(root);
  if (directory === undefined) return;
  /** The size that the first reference to each directory states, by digest. */
  const sizes = new Map([[root.hex, directory.size]]);
  /** What was referred to: digests and names, not directories. Those before `next` were visited. */
  let references: Reference[] = [];
  let next = 0;
  let parent = root;
  for (let count = 1; ; count++) {
    yield directory;
    for (const { name, node } of directory.entries) {
      if (node.type !== "directory") continue;
      const reference = { parent, name, digest: node.digest, size: node.size };
      const size = sizes.get(node.digest.hex);
      if (size === undefined) {
        sizes.set(node.digest.hex, node.size);
        references.push(reference);
      } else if (size !== node.size) {
        throw damaged(root, reference, `stating size ${node.size}, elsewhere ${size}`);
      }
    }
    const reference = references[next];
    if (reference === undefined) return;
    next += 1;
    if (next * 2 > references.length) {
      references = references.slice(next); // no more copied than were visited since the last time
      next = 0;
    }
    if (count % DIRECTORIES_PER_TURN === 0) await yieldToEvents();
    options?.signal?.throwIfAborted();
    directory = expectChild(root, reference, await get(reference.digest));
    parent = reference.digest;
  }
}

/** After how many directories other events get their turn: a local backend answers at once. */
const DIRECTORIES_PER_TURN = 256;

interface Reference {
  readonly parent: B3Digest;
  readonly name: PathComponent;
  readonly digest: B3Digest;
  readonly size: bigint;
}

function expectChild(
  root: B3Digest,
  reference: Reference,
  child: Directory | undefined,
): Directory {
  if (child === undefined) throw damaged(root, reference, "which is missing");
  if (child.size !== reference.size) {
    throw damaged(root, reference, `stating size ${reference.size}, found ${child.size}`);
  }
  return child;
}

function damaged(root: B3Digest, { parent, name, digest }: Reference, found: string): CastoreError {
  return new CastoreError(
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
  options?.signal?.throwIfAborted();
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
