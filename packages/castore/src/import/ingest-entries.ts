import type { AbortOptions } from "../bytes/abort-options.ts";
import { asBuffer, quoteBytes } from "../bytes/byte-string.ts";
import type { DirectoryPutter, DirectoryService } from "../directoryservice/directory-service.ts";
import { encodeDirectory } from "../directoryservice/encoded-directory.ts";
import { Directory } from "../model/directory.ts";
import { DirectoryEncoder } from "../model/directory-encoder.ts";
import { CastoreError } from "../model/errors.ts";
import type { DirectoryNode, Node } from "../model/node.ts";
import type { PathComponent } from "../model/path.ts";

/** One entry of a tree that is being stored. */
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
 * Further entries are taken while promised nodes are pending; the caller bounds how many. A folder that fills up takes
 * some 42 bytes and the name for each entry.
 * No directory becomes visible before every promise is fulfilled.
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
    if (path.length === 0) root = assembly.watch(assembly.root(node));
    else assembly.add(path, node);
  }
  if (root === undefined) {
    throw new CastoreError("invalid_argument", "Cannot build a tree: expected a root, found none");
  }
  return await assembly.finish(root);
}

/** A folder whose entries are coming. */
interface OpenFolder {
  readonly entries: DirectoryEncoder;
  /** Promised nodes among the entries, each until it is fulfilled. */
  readonly pending: Set<Promise<void>>;
}

/** The folders of a tree while they fill up, and the queue in which they are stored. */
class TreeAssembly implements AsyncDisposable {
  readonly #directoryService: DirectoryService;
  readonly #options: AbortOptions | undefined;
  /** Folders that have not come yet, by path. */
  readonly #folders = new Map<string, OpenFolder>();
  #putter: DirectoryPutter | undefined;
  /** The last put: folders are put one at a time, in the order in which they came. */
  #lastPut: Promise<unknown> = Promise.resolve();
  #failure: { reason: unknown } | undefined;

  constructor(directoryService: DirectoryService, options?: AbortOptions) {
    this.#directoryService = directoryService;
    this.#options = options;
  }

  /** Notes a rejection at once: the promise itself may be awaited much later. */
  watch<T>(promise: Promise<T>): Promise<T> {
    promise.catch((reason) => {
      this.#failure ??= { reason };
    });
    return promise;
  }

  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.reason;
  }

  /** Resolves with the node of the root. */
  async root(node: IngestEntry["node"]): Promise<Node> {
    return node === "directory" ? await this.#folder([]) : await node;
  }

  /** Adds an entry to its folder. */
  add(path: readonly PathComponent[], node: IngestEntry["node"]): void {
    const name = path.at(-1)!;
    const parent = pathKey(path, path.length - 1);
    let folder = this.#folders.get(parent);
    if (folder === undefined) {
      folder = { entries: new DirectoryEncoder(), pending: new Set() };
      this.#folders.set(parent, folder);
    }
    const { entries, pending } = folder;
    if (node !== "directory" && !(node instanceof Promise)) {
      entries.push(name, node);
      return;
    }
    const promise = node === "directory" ? this.#folder(path) : node;
    const packed = this.watch(
      promise.then((node) => {
        entries.push(name, node);
        pending.delete(packed); // what is left of it then is the record
      }),
    );
    pending.add(packed);
  }

  /** Stores a folder all of whose entries were added, once their nodes are known. */
  #folder(path: readonly PathComponent[]): Promise<DirectoryNode> {
    const key = pathKey(path, path.length);
    const folder = this.#folders.get(key);
    this.#folders.delete(key);
    const before = this.#lastPut;
    const put = async (): Promise<DirectoryNode> => {
      await Promise.all(folder?.pending ?? []);
      await before;
      const directory = Directory.from(folder?.entries ?? []);
      const { digest } = encodeDirectory(directory);
      this.#putter ??= this.#directoryService.openPutter(this.#options);
      await this.#putter.put(directory);
      return { type: "directory", digest, size: directory.size };
    };
    const node = this.watch(put());
    this.#lastPut = node;
    return node;
  }

  async finish(root: Promise<Node>): Promise<Node> {
    const node = await root;
    const [orphaned] = this.#folders.keys();
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

/** Returns the first names of a path as a string, one character a byte. */
function pathKey(path: readonly PathComponent[], depth: number): string {
  return path
    .slice(0, depth)
    .map((name) => asBuffer(name).toString("latin1"))
    .join("/");
}

function showPath(path: readonly PathComponent[]): string {
  return path.length === 0 ? "the root" : path.map(quoteBytes).join("/");
}
