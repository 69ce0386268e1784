import { SpillTable } from "../disk/spill-table.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import { decodeDirectoryOf, type EncodedDirectory } from "./encoded-directory.ts";

/**
 * Keeps the directories of one tree, in any order, to give them from the leaves to the root. Of a large tree
 * no more than the digests is in memory.
 */
export class ClosureSpool implements Disposable {
  readonly #table = new SpillTable();

  /** @throws CastoreError `resource_exhausted` when the disk is full */
  add({ digest, bytes }: EncodedDirectory): void {
    this.#table.add(digest.bytes, bytes);
  }

  /** A directory that was added; `undefined` if there is none of that digest. */
  get(digest: B3Digest): Directory | undefined {
    const data = this.#table.get(digest.bytes);
    return data && decodeDirectoryOf(digest, data);
  }

  /** Every directory from one on down, each once, that one last. Those that are missing are left out. */
  *leavesFirst(root: B3Digest): Generator<Directory> {
    const met = new Set([root.hex]);
    const path = [this.#visit(root)];
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const child = top.children.pop();
      if (child === undefined) {
        path.pop();
        const directory = this.get(top.digest);
        if (directory !== undefined) yield directory;
      } else if (!met.has(child.hex)) {
        met.add(child.hex);
        path.push(this.#visit(child));
      }
    }
  }

  /**
   * Every directory from one on down, each once, that one first, then breadth first, the last entry of a
   * directory first: the order in which the reference writes them.
   */
  *rootFirst(root: B3Digest): Generator<Directory> {
    const met = new Set([root.hex]);
    let level = [root];
    while (level.length > 0) {
      const next: B3Digest[] = [];
      for (const digest of level) {
        const directory = this.get(digest);
        if (directory === undefined) continue;
        yield directory;
        for (const { node } of directory.entries.toReversed()) {
          if (node.type !== "directory" || met.has(node.digest.hex)) continue;
          met.add(node.digest.hex);
          next.push(node.digest);
        }
      }
      level = next;
    }
  }

  [Symbol.dispose](): void {
    this.#table[Symbol.dispose]();
  }

  #visit(digest: B3Digest): { digest: B3Digest; children: B3Digest[] } {
    const directory = this.get(digest);
    const children = directory === undefined ? [] : childrenOf(directory);
    return { digest, children };
  }
}

/** The directories that one refers to, each once. */
export function childrenOf({ entries }: Directory): B3Digest[] {
  const children = new Map<string, B3Digest>();
  for (const { node } of entries) {
    if (node.type === "directory") children.set(node.digest.hex, node.digest);
  }
  return [...children.values()];
}
