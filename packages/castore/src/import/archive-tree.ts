import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { type Node, symlinkTarget } from "../model/node.ts";
import { type PathComponent, pathComponent } from "../model/path.ts";
import { showFilePath } from "./file-error.ts";
import { FileTable } from "./file-table.ts";
import type { IngestEntry } from "./ingest-entries.ts";

/** A folder: what is in it by name, one character a byte. */
type Folder = Map<string, Item>;

/** A folder, the number of a file, which hard links to one another share, or the target of a symlink, as names are. */
type Item = Folder | number | string;

const SLASH = 0x2f;

/**
 * The tree that an archive describes, whose members come in any order, and may replace one another. It grows as it
 * would if GNU tar unpacked the archive to an empty folder: the last one wins, missing folders are made, and what tar
 * refuses to replace is refused. So is what tar would do outside of that folder, or behind a symlink.
 *
 * Holds names, digests and targets, see docs/formats.md for how much that is.
 *
 * Paths are taken as they stand in the archive, and need not be valid. Methods throw CastoreError `invalid_argument`
 * for what is refused, naming the path.
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

  /** @returns what gives the digest of the file, to be called once its contents are durable */
  addFile(path: Buffer, file: { size: number; executable: boolean }): (digest: B3Digest) => void {
    const number = this.#files.add(file);
    this.#place(path, number);
    return (digest) => this.#files.setDigest(number, digest);
  }

  addSymlink(path: Buffer, target: Buffer): void {
    valid(path, () => symlinkTarget(target));
    this.#place(path, target.toString("latin1"));
  }

  /** What is at `target` now is at `path`, too. */
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

  /** Everything in the tree, in the order that {@link ingestEntries} asks for. To be used once: it empties the tree. */
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

  /** The folder in which a path ends. */
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
    // Cut from the bytes: a part of a string keeps all of it in memory.
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

/** Says of what is not valid where it is. */
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
