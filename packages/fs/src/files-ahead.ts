import { LRUCache } from "lru-cache";
import type { PackedDirectory, PackedNode } from "./packed-directory.ts";

/** How many small files are fetched ahead of who reads one after the other: at first, and at most. */
const FIRST_FILES = 8;
const MOST_FILES = 256;
/** By how many entries of a folder a read may miss the one behind the last. */
const TOLERANCE = 16;
/** How many folders are watched. */
const MAX_FOLDERS = 1024;
/** How many entries are looked at for one read. */
const MAX_STEPS = 2048;

/** Where a walk is: a folder, and the index of the next entry. */
export interface Step {
  readonly entries: PackedDirectory;
  readonly next: number;
}

/** Tells how many small files to read ahead of a program that reads one after the other, through all folders of a tree. */
export class FilesAhead {
  /** For each folder the index of the entry behind the last that was read. */
  readonly #next = new LRUCache<number, number>({ max: MAX_FOLDERS });
  #window = FIRST_FILES;
  /** How many files were fetched ahead and not read yet. */
  #pending = 0;

  /**
   * Notes that a file is read, and returns how many behind it to fetch now.
   *
   * @param isHeld whether its contents are there
   */
  note(folder: number, index: number, isHeld: boolean): number {
    const next = this.#next.get(folder) ?? 0;
    if (index === next - 1) return 0; // the same file again
    this.#next.set(folder, index + 1);
    if (Math.abs(index - next) > TOLERANCE) return 0;
    if (isHeld) {
      this.#pending = Math.max(this.#pending - 1, 0);
    } else {
      this.#window = FIRST_FILES;
      this.#pending = 0;
    }
    if (this.#pending > this.#window / 2) return 0; // in larger steps
    this.#window = Math.min(this.#window * 2, MOST_FILES);
    return this.#window - this.#pending;
  }

  /** Notes how many files are being fetched. */
  begin(files: number): void {
    this.#pending += files;
  }
}

/**
 * Walks a tree as programs do: the entries of each folder in order, those of a folder below where it stands.
 *
 * @param from the innermost folder first, then those that it is in
 * @param enter returns the entries of a folder; `undefined` where they are not there, and are left out
 */
export function* walkFiles(
  from: readonly Step[],
  enter: (node: PackedNode & { type: "directory" }) => PackedDirectory | undefined,
): Generator<PackedNode & { type: "file" }> {
  const stack = from.toReversed().map((step) => ({ ...step }));
  for (let steps = 0; steps < MAX_STEPS; steps++) {
    const top = stack.at(-1);
    if (top === undefined) return;
    if (top.next >= top.entries.length) {
      stack.pop();
      continue;
    }
    const node = top.entries.nodeAt(top.next);
    top.next += 1;
    if (node.type === "file") yield node;
    if (node.type !== "directory") continue;
    const entries = enter(node);
    if (entries !== undefined) stack.push({ entries, next: 0 });
  }
}
