import type { AbortOptions } from "../bytes/abort-options.ts";
import { quoteBytes } from "../bytes/byte-string.ts";
import type { DirectoryPutter, DirectoryService } from "../directoryservice/directory-service.ts";
import { encodeDirectory } from "../directoryservice/encoded-directory.ts";
import { Directory, type DirectoryEntry } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import type { DirectoryNode, Node } from "../model/node.ts";
import type { PathComponent } from "../model/path.ts";

/** One thing found in a tree that is being stored. */
export interface IngestEntry {
  /** The names that lead from the root to the entry; empty for the root itself. */
  readonly path: readonly PathComponent[];
  /**
   * The node of a file or symlink, or a promise of it while its contents are still being stored;
   * `"directory"` for a folder, whose node follows from the entries before it.
   */
  readonly node: Node | Promise<Node> | "directory";
}

/**
 * Builds the directories of a tree from its entries and stores them.
 *
 * The entries keep these rules:
 * - every entry comes before the folder that contains it
 * - the last entry is the root
 * - every path occurs once, and the folder above it is an entry of its own
 *
 * Further entries are taken while promised nodes are pending; whoever promises bounds how many.
 * No directory becomes visible before every promise is kept.
 *
 * @returns the root node
 * @throws CastoreError `invalid_argument` for entries that break the rules; whatever the entries,
 *   the promises or the service reject with. Nothing of the directories is visible then
 */
export async function ingestEntries(
  directoryService: DirectoryService,
  entries: AsyncIterable<IngestEntry>,
  options?: AbortOptions,
): Promise<Node> {
  await using assembly = new TreeAssembly(directoryService, options);
  let root: Promise<Node> | undefined;
  for await (const { path, node } of entries) {
    options?.signal?.throwIfAborted();
    assembly.throwIfFailed();
    if (root !== undefined) {
      throw new CastoreError(
        "invalid_argument",
        `Cannot add ${showPath(path)}: the root has to be the last entry`,
      );
    }
    const resolved = node === "directory" ? assembly.folder(path) : Promise.resolve(node);
    if (path.length === 0) root = assembly.watch(resolved);
    else assembly.add(path, resolved);
  }
  if (root === undefined) {
    throw new CastoreError("invalid_argument", "Cannot build a tree: expected a root, found none");
  }
  return await assembly.finish(root);
}

/** The folders of a tree while they fill up, and the queue in which they are stored. */
class TreeAssembly implements AsyncDisposable {
  readonly #directoryService: DirectoryService;
  readonly #options: AbortOptions | undefined;
  /** What was found so far in folders that have not come yet, by the path of the folder. */
  readonly #children = new Map<string, Promise<DirectoryEntry>[]>();
  #putter: DirectoryPutter | undefined;
  /** The last put: they happen one at a time, in the order in which the folders came. */
  #lastPut: Promise<unknown> = Promise.resolve();
  #failure: { reason: unknown } | undefined;

  constructor(directoryService: DirectoryService, options?: AbortOptions) {
    this.#directoryService = directoryService;
    this.#options = options;
  }

  /** Notes a rejection at once: it may be long until somebody awaits the promise. */
  watch<T>(promise: Promise<T>): Promise<T> {
    promise.catch((reason) => {
      this.#failure ??= { reason };
    });
    return promise;
  }

  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.reason;
  }

  add(path: readonly PathComponent[], node: Promise<Node>): void {
    const name = path.at(-1)!;
    const entry = this.watch(node.then((node) => ({ name, node })));
    const parent = pathKey(path.slice(0, -1));
    const siblings = this.#children.get(parent);
    if (siblings === undefined) this.#children.set(parent, [entry]);
    else siblings.push(entry);
  }

  /** The node of a folder all of whose entries were added. */
  folder(path: readonly PathComponent[]): Promise<Node> {
    const key = pathKey(path);
    const children = this.#children.get(key) ?? [];
    this.#children.delete(key);
    const before = this.#lastPut;
    const node = Promise.all(children).then(async (entries): Promise<DirectoryNode> => {
      const { directory, digest } = encodeDirectory(Directory.from(entries));
      await before;
      this.#putter ??= this.#directoryService.openPutter(this.#options);
      await this.#putter.put(directory);
      return { type: "directory", digest, size: directory.size };
    });
    this.#lastPut = this.watch(node);
    return node;
  }

  async finish(root: Promise<Node>): Promise<Node> {
    const node = await root;
    const [orphaned] = this.#children.keys();
    if (orphaned !== undefined) {
      throw new CastoreError(
        "invalid_argument",
        `Cannot build a tree: "${orphaned}" contains entries, expected an entry for it`,
      );
    }
    await this.#putter?.close();
    return node;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled([this.#lastPut]);
    await this.#putter?.[Symbol.asyncDispose]();
  }
}

/** A string that stands for a path: one character a byte, so that any name fits. */
function pathKey(path: readonly PathComponent[]): string {
  return path.map((name) => Buffer.from(name).toString("latin1")).join("/");
}

function showPath(path: readonly PathComponent[]): string {
  return path.length === 0 ? "the root" : path.map(quoteBytes).join("/");
}
