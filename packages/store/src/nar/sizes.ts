import type { DirectoryEntry, DirectoryNode, Node } from "@tvix/castore";
import { StoreError } from "../errors.ts";
import { SpillingMap } from "./spilling-map.ts";
import type { Tree } from "./tree-reader.ts";
import {
  CLOSE,
  DIRECTORY,
  ENTRY,
  ENTRY_NODE,
  EXECUTABLE_FILE,
  FILE,
  MAGIC,
  SYMLINK,
  stringLength,
} from "./wire.ts";

/** How many bytes of sizes are kept in memory: those of some 50,000 directories. */
const MAX_BYTES_IN_MEMORY = 8 * 1024 * 1024;

/** A directory whose size is being added up. */
interface OpenDirectory {
  readonly node: DirectoryNode;
  readonly entries: Iterator<DirectoryEntry>;
  bytes: number;
}

/** Sizes in a NAR of all nodes of a tree. */
export class NarSizes implements Disposable {
  /** How many bytes each directory takes. */
  readonly #directories = new SpillingMap<number>(
    {
      encode(size) {
        const bytes = Buffer.alloc(8);
        bytes.writeDoubleLE(size);
        return bytes;
      },
      decode: (bytes) => Buffer.from(bytes).readDoubleLE(),
    },
    MAX_BYTES_IN_MEMORY,
  );
  #total = 0;

  private constructor() {
    // `of` makes it, and adds up all directories.
  }

  /**
   * Adds up the sizes of the directories of a tree, each once.
   *
   * @throws StoreError `not_found` if the root is missing, `invalid_argument` if the NAR would be longer than
   *   2^53 bytes; whatever reading the tree throws
   */
  static async of(root: Node, tree: Tree): Promise<NarSizes> {
    const sizes = new NarSizes();
    try {
      if (root.type === "directory") await sizes.#addUp(root, tree);
      sizes.#total = MAGIC.length + sizes.node(root);
      if (Number.isSafeInteger(sizes.#total)) return sizes;
      const reason = `expected at most ${Number.MAX_SAFE_INTEGER} bytes, found ${sizes.#total}`;
      throw refusal("invalid_argument", root, reason);
    } catch (error) {
      sizes[Symbol.dispose]();
      throw error;
    }
  }

  /** Length of the NAR in bytes. */
  get total(): number {
    return this.#total;
  }

  /** Returns how many bytes a node of the tree takes. */
  node(node: Node): number {
    return node.type === "directory" ? this.#directories.get(node.digest)! : leafSize(node);
  }

  [Symbol.dispose](): void {
    this.#directories[Symbol.dispose]();
  }

  /** Adds up the size of each directory, depth first. */
  async #addUp(root: DirectoryNode, tree: Tree): Promise<void> {
    const open = async (node: DirectoryNode): Promise<OpenDirectory> => {
      const directory = await tree.get(node.digest);
      if (directory === undefined) throw refusal("not_found", node, "it is missing");
      const bytes = DIRECTORY.length + CLOSE.length;
      return { node, entries: directory.encodedEntries[Symbol.iterator](), bytes };
    };
    const path = [await open(root)];
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const { done, value: entry } = top.entries.next();
      if (done) {
        path.pop();
        await this.#directories.add(top.node.digest, top.bytes);
        const parent = path.at(-1);
        if (parent !== undefined) parent.bytes += top.bytes;
        continue;
      }
      const { name, node } = entry;
      top.bytes += entrySize(name.length);
      const known = node.type === "directory" ? this.#directories.get(node.digest) : leafSize(node);
      if (known !== undefined) top.bytes += known;
      else path.push(await open(node as DirectoryNode));
    }
  }
}

/** Returns how many bytes an entry takes beside its node, of which the last, a `CLOSE`, come after the node. */
export function entrySize(nameLength: number): number {
  return ENTRY.length + stringLength(nameLength) + ENTRY_NODE.length + CLOSE.length;
}

/** Returns how many bytes a file or symlink takes. */
export function leafSize(node: Exclude<Node, DirectoryNode>): number {
  return node.type === "symlink"
    ? SYMLINK.length + stringLength(node.target.length) + CLOSE.length
    : (node.executable ? EXECUTABLE_FILE : FILE).length +
        stringLength(Number(node.size)) +
        CLOSE.length;
}

function refusal(code: "not_found" | "invalid_argument", node: Node, reason: string): StoreError {
  const shown = node.type === "symlink" ? "a symlink" : `${node.type} ${node.digest}`;
  return new StoreError(code, `Cannot measure the NAR of ${shown}: ${reason}`);
}
