import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { quoteBytes } from "../bytes/byte-string.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import type { EncodedEntries } from "../model/encoded-entries.ts";
import { CastoreError } from "../model/errors.ts";
import type { DirectoryNode, Node } from "../model/node.ts";
import type { PathComponent } from "../model/path.ts";
import type { DirectoryService, RecursiveOptions } from "./directory-service.ts";
import { SizeLedger } from "./size-ledger.ts";

/** How many directories are read together, and how many entries these and what is below them have at most. */
const MAX_BATCH = 128;
const MAX_BATCH_SIZE = 65_536n;

/** What an entry of a directory says of a sub-directory. */
interface Reference {
  readonly parent: B3Digest;
  readonly name: PathComponent;
  readonly node: DirectoryNode;
}

/**
 * Walks a directory and everything below it, breadth first, each once. For services whose backend has
 * no better way.
 *
 * @param getMany looks up directories, in order
 * @returns nothing if the root is absent
 * @throws CastoreError `data_loss` if a directory below the root is missing, or not of the size that
 *   every reference to it states
 */
export async function* traverseDirectory(
  getMany: DirectoryService["getMany"],
  root: B3Digest,
  options: RecursiveOptions = {},
): AsyncGenerator<Directory> {
  const { signal, skip } = options;
  signal?.throwIfAborted();
  const [first] = await getMany([root], { signal });
  if (first === undefined) return;
  const sizes = new SizeLedger();
  sizes.find(root.key, first);
  const queue = new ReferenceQueue();
  const add = (parent: B3Digest, { encodedEntries: entries }: Directory) => {
    for (let index = 0; index < entries.length; index++) {
      if (entries.typeAt(index) !== "directory") continue;
      const reference = referenceAt({ parent, entries, index });
      const { digest, size } = reference.node;
      const met = sizes.refer(digest.key, size);
      if (met === "wrong") throw damaged(root, reference, statedWrong(size));
      if (met === "first") queue.push({ parent, entries, index });
    }
  };
  yield first;
  add(root, first);
  while (queue.length > 0) {
    await yieldToEvents(); // a local backend answers at once
    signal?.throwIfAborted();
    const batch = await withoutSkipped(queue.take(), skip);
    if (batch.length === 0) continue;
    const digests = batch.map(({ node }) => node.digest);
    const found = await getMany(digests, { signal });
    for (const [i, reference] of batch.entries()) {
      const directory = found[i];
      if (directory === undefined) throw damaged(root, reference, "which is missing");
      const wrong = sizes.find(reference.node.digest.key, directory);
      if (wrong !== undefined) throw damaged(root, reference, statedWrong(wrong));
      signal?.throwIfAborted();
      yield directory;
      add(reference.node.digest, directory);
    }
  }
}

/** A reference that waits: what it says stays in the encoding, where it takes a tenth of the memory. */
interface WaitingReference {
  readonly parent: B3Digest;
  readonly entries: EncodedEntries;
  readonly index: number;
}

function referenceAt({ parent, entries, index }: WaitingReference): Reference {
  const { name, node } = entries.at(index);
  return { parent, name, node: node as DirectoryNode };
}

/** References that wait for their turn. */
class ReferenceQueue {
  #references: WaitingReference[] = [];
  #next = 0;

  get length(): number {
    return this.#references.length - this.#next;
  }

  push(reference: WaitingReference): void {
    this.#references.push(reference);
  }

  /** Takes as many as may be read together, at least one. */
  take(): Reference[] {
    const batch: Reference[] = [];
    let size = 0n;
    while (this.length > 0 && batch.length < MAX_BATCH) {
      const reference = referenceAt(this.#references[this.#next]!);
      size += reference.node.size;
      if (batch.length > 0 && size > MAX_BATCH_SIZE) break;
      batch.push(reference);
      this.#next += 1;
    }
    if (this.#next * 2 > this.#references.length) {
      this.#references = this.#references.slice(this.#next); // copies no more than were taken since the last time
      this.#next = 0;
    }
    return batch;
  }
}

async function withoutSkipped(
  batch: readonly Reference[],
  skip: RecursiveOptions["skip"],
): Promise<readonly Reference[]> {
  if (skip === undefined) return batch;
  const skipped = await skip(batch.map(({ node }) => node.digest));
  return batch.filter((_, i) => !skipped[i]);
}

/**
 * Leaves out of a tree what is to be skipped, where whoever gives it gives all of it.
 *
 * @param tree the directories of a tree with their digests, the root first, each after one that refers to it
 */
export async function* skipDirectories(
  tree: AsyncIterable<{ readonly digest: B3Digest; readonly directory: Directory }>,
  skip: NonNullable<RecursiveOptions["skip"]>,
): AsyncGenerator<Directory> {
  let wanted: Set<string> | undefined;
  const asked = new Set<string>();
  for await (const { digest, directory } of tree) {
    wanted ??= new Set([digest.key]);
    if (!wanted.delete(digest.key)) continue;
    yield directory;
    const children: B3Digest[] = [];
    for (const { node } of directory.directories()) {
      if (asked.has(node.digest.key)) continue;
      asked.add(node.digest.key);
      children.push(node.digest);
    }
    const skipped = children.length > 0 ? await skip(children) : [];
    for (const [i, child] of children.entries()) if (!skipped[i]) wanted.add(child.key);
  }
}

function statedWrong(size: bigint): string {
  return `stating size ${size}, which it does not have`;
}

function damaged(root: B3Digest, { parent, name, node }: Reference, found: string): CastoreError {
  return new CastoreError(
    "data_loss",
    `Cannot read the tree below ${root}: entry ${quoteBytes(name)} of directory ${parent} refers to ` +
      `${node.digest}, ${found}`,
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
