import { type Dirent, lstatSync, opendirSync, readdirSync, type Stats, statSync } from "node:fs";
import { lstat } from "node:fs/promises";
import { setImmediate } from "node:timers/promises";
import { fileError, noSuchFile, showFilePath } from "../disk/file-error.ts";
import { CastoreError } from "../model/errors.ts";
import { type PathComponent, pathComponent } from "../model/path.ts";
import type { EntryFilter } from "./entry-filter.ts";

/** One step of a walk. A folder is two: before and after everything in it. */
export interface WalkStep {
  readonly type: "enter" | "leave" | "file" | "symlink";
  /** Its name in the folder above; `undefined` for the root. */
  readonly name: PathComponent | undefined;
  /** Its path in the file system, one character a byte. */
  readonly at: string;
  /** What the file system says of it, where that was asked: of folders, and of the root. */
  readonly stats?: Stats | undefined;
}

/** A folder that is being walked: in this form, one of a million files fits into memory. */
interface Frame {
  readonly name: PathComponent | undefined;
  readonly at: string;
  /**
   * Names of its entries, one character a byte, sorted bytewise, last first: the next one is taken from the end.
   */
  readonly rest: string[];
  /** Types of the entries that are no files; `undefined` if the file system does not tell them when it lists a folder. */
  readonly others: ReadonlyMap<string, FileType | undefined>;
}

/**
 * Walks a tree in canonical order: depth first, the entries of a folder sorted bytewise by name. Does not follow
 * symlinks.
 */
export class TreeWalk {
  readonly #root: string;
  readonly #isExcluded: EntryFilter | undefined;
  readonly #stack: Frame[] = [];
  #hasBegun = false;

  /** @param exclude leaves entries out, and does not enter folders. Default: none */
  constructor(root: Buffer, exclude?: EntryFilter) {
    this.#root = root.toString("latin1");
    this.#isExcluded = exclude;
  }

  /**
   * Takes the next steps; none at the end of the walk.
   *
   * @throws CastoreError `not_found` if there is no such path, `invalid_argument` for anything but
   *   folders, regular files and symlinks, `aborted` for what vanishes meanwhile
   */
  async take({ maxSteps, maxFiles }: { maxSteps: number; maxFiles: number }): Promise<WalkStep[]> {
    const steps: WalkStep[] = [];
    if (!this.#hasBegun) {
      this.#hasBegun = true;
      const at = this.#root;
      const stats = await lstatRoot(pathBytes(at));
      const type = expectStorable(at, typeOf(stats));
      const name = undefined;
      const isFolder = type === "directory";
      steps.push(isFolder ? await this.#enter(name, at) : { type, name, at, stats });
    }
    let files = 0;
    let frame = this.#stack.at(-1);
    while (frame !== undefined && steps.length < maxSteps && files < maxFiles) {
      const entry = frame.rest.pop();
      if (entry === undefined) {
        steps.push({ type: "leave", name: frame.name, at: frame.at });
        this.#stack.pop();
      } else {
        const at = `${frame.at}/${entry}`;
        const listed = frame.others.has(entry) ? frame.others.get(entry) : "file";
        const found = listed ?? typeOf(lstatEntry(at));
        if (this.#excludes(at, found)) continue;
        const type = expectStorable(at, found);
        if (type === "file") files += 1;
        const name = pathComponent(new Uint8Array(Buffer.from(entry, "latin1")));
        const isFolder = type === "directory";
        steps.push(isFolder ? await this.#enter(name, at) : { type, name, at });
      }
      frame = this.#stack.at(-1);
    }
    return steps;
  }

  async #enter(name: PathComponent | undefined, at: string): Promise<WalkStep> {
    const { stats, names, others } = await listFolder(pathBytes(at));
    this.#stack.push({ name, at, rest: names, others });
    return { type: "enter", name, at, stats };
  }

  #excludes(at: string, type: FileType | undefined): boolean {
    if (this.#isExcluded === undefined) return false;
    return this.#isExcluded(pathBytes(at.slice(this.#root.length + 1)), type === "directory");
  }
}

/** Returns the bytes of a path that has one character a byte. */
export function pathBytes(path: string): Buffer {
  return Buffer.from(path, "latin1");
}

/** Longest folder that is listed at once, by its own length in bytes, which grows with the number of entries. */
const SMALL_FOLDER = 64 * 1024;

/** How many entries of a larger one are listed at a time: it would hold up the event loop, and take much memory. */
const LISTED_AT_ONCE = 1024;

/** Has Node.js give names as bytes, which its types do not know of folders that are opened. */
const BYTES = "buffer" as BufferEncoding;

/** A folder with what the file system says of it, as in {@link Frame}. */
interface ListedFolder {
  readonly stats: Stats;
  readonly names: string[];
  readonly others: ReadonlyMap<string, FileType | undefined>;
}

async function listFolder(at: Buffer): Promise<ListedFolder> {
  try {
    const stats = statSync(at);
    const names: string[] = [];
    const others = new Map<string, FileType | undefined>();
    const add = (entry: Dirent<Buffer>): void => {
      const name = entry.name.toString("latin1");
      names.push(name);
      if (!entry.isFile()) others.set(name, typeOf(entry));
    };
    if (stats.size <= SMALL_FOLDER) {
      for (const entry of readdirSync(at, { encoding: "buffer", withFileTypes: true })) add(entry);
    } else {
      using closing = new DisposableStack();
      const folder = opendirSync(at, { encoding: BYTES, bufferSize: LISTED_AT_ONCE });
      closing.defer(() => folder.closeSync());
      for (let entry = folder.readSync(); entry !== null; entry = folder.readSync()) {
        add(entry as unknown as Dirent<Buffer>);
        if (names.length % LISTED_AT_ONCE === 0) await setImmediate();
      }
    }
    return { stats, names: names.sort((a, b) => (a < b ? 1 : -1)), others };
  } catch (error) {
    throw fileError(error, at, "read folder");
  }
}

async function lstatRoot(at: Buffer): Promise<Stats> {
  try {
    return await lstat(at);
  } catch (error) {
    throw noSuchFile(error, at) ?? fileError(error, at, "import");
  }
}

/**
 * Asks the file system about an entry, and blocks the thread. Does not follow symlinks.
 *
 * @param at its path, one character a byte
 * @throws CastoreError by cause, such as `aborted` for what is not there any more
 */
export function lstatEntry(at: string): Stats {
  try {
    return lstatSync(pathBytes(at));
  } catch (error) {
    throw fileError(error, pathBytes(at), "import");
  }
}

type FileType =
  | "directory"
  | "file"
  | "symlink"
  | "socket"
  | "fifo"
  | "block device"
  | "character device";

function typeOf(entry: Stats | Dirent<Buffer>): FileType | undefined {
  if (entry.isDirectory()) return "directory";
  if (entry.isFile()) return "file";
  if (entry.isSymbolicLink()) return "symlink";
  if (entry.isSocket()) return "socket";
  if (entry.isFIFO()) return "fifo";
  if (entry.isBlockDevice()) return "block device";
  if (entry.isCharacterDevice()) return "character device";
  return undefined;
}

function expectStorable(at: string, type: FileType | undefined): "directory" | "file" | "symlink" {
  if (type === "directory" || type === "file" || type === "symlink") return type;
  throw new CastoreError(
    "invalid_argument",
    `Cannot import ${showFilePath(pathBytes(at))}: expected a folder, a regular file or a symlink, found ` +
      `a ${type ?? "file of unknown type"}`,
  );
}
