import {
  type AbortOptions,
  type B3Digest,
  type Directory,
  type DirectoryService,
  type Node,
  unlessAborted,
} from "@tvix/castore";
import { type Tree, TreeReader } from "./tree-reader.ts";

/** What a tree is read with. */
export interface TreeSources {
  readonly directoryService: Pick<DirectoryService, "getRecursive">;
  /** Trees of that directory service that others may be reading as well. Default: each is read by itself. */
  readonly trees?: SharedTrees | undefined;
}

/** Starts to read the directories of a tree. */
export function openTree(
  root: Node,
  { directoryService, trees }: TreeSources,
  options?: AbortOptions,
): Tree {
  return trees?.open(root, options) ?? new TreeReader(root, directoryService, options);
}

/** A tree that is being read. */
interface OpenTree {
  readonly reader: TreeReader;
  readonly abandon: AbortController;
  /** How many read it. */
  readers: number;
}

/** Trees that are being read, each once however many read it at the same time. */
export class SharedTrees {
  readonly #directoryService: TreeSources["directoryService"];
  /** By digest of the root. */
  readonly #open = new Map<string, OpenTree>();

  constructor(directoryService: TreeSources["directoryService"]) {
    this.#directoryService = directoryService;
  }

  /** Joins those who read a tree, or starts to read it. Cancelling ends the wait of this reader alone. */
  open(root: Node, { signal }: AbortOptions = {}): Tree {
    const key = root.type === "directory" ? root.digest.key : ""; // all others have the same directories: none
    const tree = this.#open.get(key) ?? this.#start(key, root);
    tree.readers += 1;
    const wait = async <T>(result: Promise<T>): Promise<T> => {
      result.catch(() => this.#forget(key, tree)); // whoever comes next tries again
      return await unlessAborted(result, signal);
    };
    return {
      get: (digest: B3Digest): Promise<Directory | undefined> => wait(tree.reader.get(digest)),
      readAll: () => wait(tree.reader.readAll()),
      [Symbol.asyncDispose]: async () => {
        tree.readers -= 1;
        if (tree.readers > 0) return;
        this.#forget(key, tree);
        tree.abandon.abort(new DOMException("abandoned: all readers have gone", "AbortError"));
        await tree.reader[Symbol.asyncDispose]();
      },
    };
  }

  #start(key: string, root: Node): OpenTree {
    const abandon = new AbortController();
    const reader = new TreeReader(root, this.#directoryService, { signal: abandon.signal });
    const tree: OpenTree = { reader, abandon, readers: 0 };
    this.#open.set(key, tree);
    return tree;
  }

  #forget(key: string, tree: OpenTree): void {
    if (this.#open.get(key) === tree) this.#open.delete(key);
  }
}
