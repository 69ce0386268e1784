import { showFilePath } from "../disk/file-error.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { type Node, symlinkTarget } from "../model/node.ts";
import { type PathComponent, pathComponent } from "../model/path.ts";
import { FileTable } from "./file-table.ts";
import type { IngestEntry } from "./ingest-entries.ts";

/** Entries of a folder by name, one character a byte. */
type Folder = Map<string, Item>;

/** A folder; the number of a file, which its hard links share; or the target of a symlink, one character a byte. */
type Item = Folder | number | string;

const SLASH = 0x2f;

/**
 * Builds the tree of an archive, whose members come in any order and may replace one another, as GNU tar would in an
 * empty folder: the last member of a path wins, missing folders are made, and a folder with entries is not replaced.
 * Refuses members outside of that folder, and below a symlink.
 *
 * Holds names, digests and targets; docs/formats.md says how much memory that takes.
 *
 * Paths are those of the archive, not yet validated. Methods throw CastoreError `invalid_argument` with the path of a
 * member that is refused.
 */
export class ArchiveTree {
  readonly #root: Folder = new Map();
  readonly #files = new FileTable();

  addDirectory(path: Buffer): void {
    const names = namesOf(path);
    if (names.length === 0) return;
    const parent = this.#parent(path, names);
    const name = names.at(-1)!;
    if (!(parent.get(name) instanceof Map)) parent.set(name, new Map());
  }

  /** @returns a function that takes the digest of the file, once its contents are durable */
  addFile(path: Buffer, file: { size: number; executable: boolean }): (digest: B3Digest) => void {
    const number = this.#files.add(file);
    this.#place(path, number);
    return (digest) => this.#files.setDigest(number, digest);
  }

  addSymlink(path: Buffer, target: Buffer): void {
    valid(path, () => symlinkTarget(target));
    this.#place(path, target.toString("latin1"));
  }

  /** Adds a hard link at `path` to the file or symlink that is at `target` now. */
  addHardLink(path: Buffer, target: Buffer): void {
    const names = namesOf(target);
    const item = names.length > 0 ? this.#parent(target, names).get(names.at(-1)!) : this.#root;
    if (item === undefined || item instanceof Map) {
      const found = item === undefined ? "nothing there" : "a folder";
      const expected = `expected ${showFilePath(target)}, which it is a link to, to be a file before it`;
      throw refusal(path, `${expected}, found ${found}`);
    }
    this.#place(path, item);
  }

  /** Yields everything in the tree in the order of {@link ingestEntries}, and empties it. */
  *takeEntries(): Generator<IngestEntry> {
    const path: PathComponent[] = [];
    const open = [{ folder: this.#root, items: this.#root.entries() }];
    for (let frame = open.at(-1); frame !== undefined; frame = open.at(-1)) {
      const { done, value } = frame.items.next();
      if (done) {
        frame.folder.clear();
        yield { path: [...path], node: "directory" };
        open.pop();
        path.pop();
        continue;
      }
      const [name, item] = value;
      path.push(pathComponent(bytesOf(name)));
      if (item instanceof Map) {
        open.push({ folder: item, items: item.entries() });
        continue;
      }
      yield { path: [...path], node: this.#node(item) };
      path.pop();
    }
  }

  #node(item: number | string): Node {
    if (typeof item === "number") return this.#files.node(item);
    return { type: "symlink", target: symlinkTarget(bytesOf(item)) };
  }

  #place(path: Buffer, item: Item): void {
    const names = namesOf(path);
    const name = names.at(-1);
    if (name === undefined) throw refusal(path, "expected a name, found the root of the archive");
    const parent = this.#parent(path, names);
    const before = parent.get(name);
    if (before instanceof Map && before.size > 0) {
      throw refusal(
        path,
        "expected to replace a file or an empty folder, found a folder with entries",
      );
    }
    parent.set(name, item);
  }

  /** Returns the folder that contains a path, and makes those that are missing. */
  #parent(path: Buffer, names: readonly string[]): Folder {
    let folder = this.#root;
    for (const name of names.slice(0, -1)) {
      let item = folder.get(name);
      if (item === undefined) {
        item = new Map();
        folder.set(name, item);
      } else if (!(item instanceof Map)) {
        const what = typeof item === "string" ? "symlink" : "file";
        const shown = showFilePath(Buffer.from(name, "latin1"));
        throw refusal(path, `expected a folder above it, found the ${what} ${shown}`);
      }
      folder = item;
    }
    return folder;
  }
}

/** Splits a path into names, one character a byte. Returns none for the root, which may be written `/`. */
function namesOf(path: Buffer): string[] {
  const names: string[] = [];
  for (let at = 0; at < path.length; ) {
    const slash = path.indexOf(SLASH, at);
    const end = slash < 0 ? path.length : slash;
    // Cut from the bytes: a part of a string would keep the whole string in memory.
    const name = path.toString("latin1", at, end);
    if (name === "..") throw refusal(path, 'expected a path inside of the archive, found ".."');
    if (name !== "" && name !== ".") {
      valid(path, () => pathComponent(path.subarray(at, end)));
      names.push(name);
    }
    at = end + 1;
  }
  if (path[0] === SLASH && names.length > 0)
    throw refusal(path, "expected a path inside of the archive, found an absolute one");
  return names;
}

function bytesOf(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "latin1"));
}

/** Runs a validation, and adds the path to its error. */
function valid<T>(path: Buffer, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof CastoreError)) throw error;
    throw refusal(path, error.message);
  }
}

function refusal(path: Buffer, reason: string): CastoreError {
  return new CastoreError(
    "invalid_argument",
    `Cannot import ${showFilePath(path)} of an archive: ${reason}`,
  );
}
