import { SpillTable } from "../disk/spill-table.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import { decodeDirectoryOf, type EncodedDirectory } from "./encoded-directory.ts";

/**
 * Collects the directories of one tree in any order, and returns them sorted. Only the digests of a large tree are in
 * memory.
 */
export class ClosureSpool implements Disposable {
  readonly #table = new SpillTable();

  /** @throws CastoreError `resource_exhausted` when the disk is full */
  add({ digest, bytes }: EncodedDirectory): void {
    this.#table.add(digest.bytes, bytes);
  }

  /** Returns a directory that was added; `undefined` if there is none with that digest. */
  get(digest: B3Digest): Directory | undefined {
    const data = this.#table.get(digest.bytes);
    return data && decodeDirectoryOf(digest, data);
  }

  /** Iterates over a directory and its descendants in post-order, each once. Missing directories are skipped. */
  *leavesFirst(root: B3Digest): Generator<Directory> {
    const met = new Set([root.key]);
    const path = [this.#visit(root)];
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const child = top.children.pop();
      if (child === undefined) {
        path.pop();
        const directory = this.get(top.digest);
        if (directory !== undefined) yield directory;
      } else if (!met.has(child.key)) {
        met.add(child.key);
        path.push(this.#visit(child));
      }
    }
  }

  /**
   * Iterates over a directory and its descendants breadth first, each once, the last entry of a directory first: the
   * order in which tvix writes them.
   */
  *rootFirst(root: B3Digest): Generator<Directory> {
    const met = new Set([root.key]);
    let level = [root];
    while (level.length > 0) {
      const next: B3Digest[] = [];
      for (const digest of level) {
        const directory = this.get(digest);
        if (directory === undefined) continue;
        yield directory;
        for (const { node } of [...directory.directories()].toReversed()) {
          if (met.has(node.digest.key)) continue;
          met.add(node.digest.key);
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

/** Returns the digests of the child directories of a directory, each once. */
export function childrenOf({ entries }: Directory): B3Digest[] {
  const children = new Map<string, B3Digest>();
  for (const { node } of entries) {
    if (node.type === "directory") children.set(node.digest.key, node.digest);
  }
  return [...children.values()];
}
