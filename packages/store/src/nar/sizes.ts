import {
  type AbortOptions,
  type B3Digest,
  type DirectoryNode,
  type DirectoryService,
  encodeDirectory,
  type Node,
} from "@tvix/castore";
import { StoreError } from "../errors.ts";
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

/** A directory, as far as its size in a NAR goes. */
interface Sketch {
  /** Bytes of everything but the directories in it. */
  readonly bytes: number;
  readonly children: readonly B3Digest[];
}

/** How long the parts of the NAR of a tree are. */
export class NarSizes {
  /** Bytes of the NAR. */
  readonly total: number;
  /** Bytes that each directory takes, by digest. */
  readonly #directories: ReadonlyMap<string, number>;

  private constructor(root: Node, directories: ReadonlyMap<string, number>) {
    this.#directories = directories;
    this.total = MAGIC.length + this.node(root);
  }

  /**
   * Looks at every directory of a tree once. Some 200 bytes of each are held.
   *
   * @throws StoreError `not_found` if the root is missing, `invalid_argument` if the NAR would be longer than
   *   2^53 bytes; whatever the service throws
   */
  static async of(
    root: Node,
    directoryService: DirectoryService,
    options?: AbortOptions,
  ): Promise<NarSizes> {
    const directories =
      root.type === "directory"
        ? addUp(root, await sketches(root, directoryService, options))
        : new Map<string, number>();
    const sizes = new NarSizes(root, directories);
    if (Number.isSafeInteger(sizes.total)) return sizes;
    const reason = `expected at most ${Number.MAX_SAFE_INTEGER} bytes, found ${sizes.total}`;
    throw new StoreError("invalid_argument", `Cannot use the NAR of ${show(root)}: ${reason}`);
  }

  /** How many bytes a node of the tree takes. */
  node(node: Node): number {
    return node.type === "directory" ? this.#directories.get(node.digest.hex)! : leafSize(node);
  }
}

/** How many bytes an entry of a directory takes, but for its node. The last of them, a `CLOSE`, come after that. */
export function entrySize(nameLength: number): number {
  return ENTRY.length + stringLength(nameLength) + ENTRY_NODE.length + CLOSE.length;
}

/** How many bytes a file or symlink takes. */
export function leafSize(node: Exclude<Node, DirectoryNode>): number {
  return node.type === "symlink"
    ? SYMLINK.length + stringLength(node.target.length) + CLOSE.length
    : (node.executable ? EXECUTABLE_FILE : FILE).length +
        stringLength(Number(node.size)) +
        CLOSE.length;
}

async function sketches(
  root: DirectoryNode,
  directoryService: DirectoryService,
  options?: AbortOptions,
): Promise<ReadonlyMap<string, Sketch>> {
  const found = new Map<string, Sketch>();
  for await (const directory of directoryService.getRecursive(root.digest, options)) {
    let bytes = DIRECTORY.length + CLOSE.length;
    const children: B3Digest[] = [];
    for (const { name, node } of directory.entries) {
      bytes += entrySize(name.length);
      if (node.type === "directory") children.push(node.digest);
      else bytes += leafSize(node);
    }
    found.set(encodeDirectory(directory).digest.hex, { bytes, children });
  }
  if (found.size > 0) return found;
  throw new StoreError("not_found", `Cannot use the NAR of ${show(root)}: it is missing`);
}

/** Adds to each directory what is in it, the innermost first. */
function addUp(
  root: DirectoryNode,
  sketches: ReadonlyMap<string, Sketch>,
): ReadonlyMap<string, number> {
  const sizes = new Map<string, number>();
  const path = [{ digest: root.digest, next: 0 }];
  for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
    const { bytes, children } = sketches.get(top.digest.hex)!;
    const child = children[top.next++];
    if (child !== undefined) {
      if (!sizes.has(child.hex)) path.push({ digest: child, next: 0 });
      continue;
    }
    path.pop();
    const size = children.reduce((sum, child) => sum + sizes.get(child.hex)!, bytes);
    sizes.set(top.digest.hex, size);
  }
  return sizes;
}

function show(node: Node): string {
  return node.type === "symlink" ? "a symlink" : `${node.type} ${node.digest}`;
}
