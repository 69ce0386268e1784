import type { AbortOptions } from "../bytes/abort-options.ts";
import { compareBytes, equalBytes } from "../bytes/byte-string.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory, DirectoryEntry } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import type { DirectoryNode, Node } from "../model/node.ts";
import type { PathComponent } from "../model/path.ts";
import type { DirectoryService } from "./directory-service.ts";

/** A difference between two trees. */
export interface TreeDifference {
  /** Where it is, from the root; empty for the root itself. */
  readonly path: readonly PathComponent[];
  /** What the first tree has there; `undefined` for nothing. */
  readonly before: Node | undefined;
  /** What the second tree has there; `undefined` for nothing. */
  readonly after: Node | undefined;
}

/** How many directories are read together, and how many entries these and what is below them have, unless one has more. */
const MAX_BATCH = 128;
const MAX_BATCH_SIZE = 65_536n;

/** What two trees have at one name. */
interface Pair {
  readonly name: PathComponent | undefined;
  readonly before: Node | undefined;
  readonly after: Node | undefined;
}

/** Two directories that are being compared. */
interface Frame {
  readonly path: readonly PathComponent[];
  readonly pairs: readonly Pair[];
  next: number;
  /** Directories below that were read ahead. */
  ahead: ReadonlyMap<string, Directory>;
}

/**
 * Compares two trees of one store, depth first, names sorted bytewise. Directories of equal digests are not read. What only
 * one of them has is told together with everything below it. A directory that both have is not told itself.
 *
 * Memory depends on the depth of the trees and their widest directory.
 *
 * @throws CastoreError `not_found` if a root directory is missing, `data_loss` if one below is
 */
export async function* compareTrees(
  before: Node,
  after: Node,
  directoryService: Pick<DirectoryService, "getMany">,
  options?: AbortOptions,
): AsyncGenerator<TreeDifference, undefined> {
  options?.signal?.throwIfAborted();
  if (isEqual(before, after)) return;
  const root: Pair = { name: undefined, before, after };
  const stack: Frame[] = [{ path: [], pairs: [root], next: 0, ahead: new Map() }];
  for (let frame = stack.at(-1); frame !== undefined; frame = stack.at(-1)) {
    options?.signal?.throwIfAborted();
    const pair = frame.pairs[frame.next];
    if (pair === undefined) {
      stack.pop();
      continue;
    }
    const path = pair.name === undefined ? [] : [...frame.path, pair.name];
    const directories = directoriesOf(pair);
    if (directories.length < 2) yield { path, before: pair.before, after: pair.after };
    if (directories.length > 0) {
      if (directories.some(({ digest }) => !frame.ahead.has(digest.key))) {
        frame.ahead = await readAhead(frame, directoryService, options);
      }
      const pairs = [...pairsOf(directoryOf(pair.before, frame), directoryOf(pair.after, frame))];
      stack.push({ path, pairs, next: 0, ahead: new Map() });
    }
    frame.next += 1;
  }
}

/** Returns the nodes of a pair that are directories. */
function directoriesOf({ before, after }: Pair): DirectoryNode[] {
  return [before, after].filter((node) => node?.type === "directory");
}

function directoryOf(node: Node | undefined, { ahead }: Frame): Directory | undefined {
  return node?.type === "directory" ? ahead.get(node.digest.key) : undefined;
}

/** Reads the directories of the next pairs. */
async function readAhead(
  { path, pairs, next }: Frame,
  directoryService: Pick<DirectoryService, "getMany">,
  options: AbortOptions | undefined,
): Promise<ReadonlyMap<string, Directory>> {
  const wanted = new Map<string, B3Digest>();
  let size = 0n;
  for (const pair of pairs.slice(next)) {
    const directories = directoriesOf(pair);
    for (const node of directories) size += node.size;
    if (wanted.size > 0 && (size > MAX_BATCH_SIZE || wanted.size >= MAX_BATCH)) break;
    for (const { digest } of directories) wanted.set(digest.key, digest);
  }
  const found = await directoryService.getMany([...wanted.values()], options);
  return new Map(
    [...wanted.values()].map((digest, i) => {
      const directory = found[i];
      if (directory !== undefined) return [digest.key, directory];
      const isRoot = pairs[0]?.name === undefined && path.length === 0;
      const code = isRoot ? "not_found" : "data_loss";
      throw new CastoreError(code, `Cannot compare trees: directory ${digest} is missing`);
    }),
  );
}

/** Merges the entries of two directories by name, without those that are equal. */
function* pairsOf(before: Directory | undefined, after: Directory | undefined): Generator<Pair> {
  const [left, right] = [before?.entries ?? [], after?.entries ?? []];
  for (let i = 0, j = 0; i < left.length || j < right.length; ) {
    const order = compareEntries(left[i], right[j]);
    const one = order <= 0 ? left[i++] : undefined;
    const other = order >= 0 ? right[j++] : undefined;
    const name = (one ?? other)!.name;
    if (one && other && isEqual(one.node, other.node)) continue;
    yield { name, before: one?.node, after: other?.node };
  }
}

function compareEntries(a: DirectoryEntry | undefined, b: DirectoryEntry | undefined): number {
  if (a === undefined) return 1;
  return b === undefined ? -1 : compareBytes(a.name, b.name);
}

function isEqual(a: Node, b: Node): boolean {
  if (a.type === "symlink" || b.type === "symlink") {
    return a.type === "symlink" && b.type === "symlink" && equalBytes(a.target, b.target);
  }
  if (a.type !== b.type || !a.digest.equals(b.digest)) return false;
  return a.type !== "file" || b.type !== "file" || a.executable === b.executable;
}
