import type { Dirent, Stats } from "node:fs";
import { lstat, readdir } from "node:fs/promises";
import { CastoreError } from "../model/errors.ts";
import { type PathComponent, pathComponent } from "../model/path.ts";
import { fileError, noSuchFile, showFilePath } from "./file-error.ts";

/** One step of a walk. A folder is two: before and after everything in it. */
export interface WalkStep {
  readonly type: "enter" | "leave" | "file" | "symlink";
  /** The names that lead from the root to here; empty for the root itself. */
  readonly path: readonly PathComponent[];
  /** Its path in the file system. */
  readonly at: Buffer;
}

/** A folder that is being walked. */
interface Frame {
  readonly path: readonly PathComponent[];
  readonly at: Buffer;
  /** Its entries, sorted bytewise by name, last first: the next one is taken from the end. */
  readonly rest: ListedEntry[];
}

/** An entry of a folder: in this form a million of them fit into memory. */
interface ListedEntry {
  /** One character a byte. */
  readonly name: string;
  /** `undefined` if the file system does not tell types when it lists a folder. */
  readonly type: FileType | undefined;
}

/**
 * Walks a tree in canonical order: depth first, the entries of a folder sorted bytewise by name. Does not follow
 * symlinks.
 *
 * @throws CastoreError `not_found` if there is no such path, `invalid_argument` for anything but
 *   folders, regular files and symlinks, `aborted` for what vanishes meanwhile
 */
export async function* walkTree(root: Buffer): AsyncGenerator<WalkStep> {
  const stack: Frame[] = [];
  const type = expectStorable(root, typeOf(await lstatRoot(root)));
  if (type !== "directory") {
    yield { type, path: [], at: root };
    return;
  }
  yield { type: "enter", path: [], at: root };
  stack.push({ path: [], at: root, rest: await listFolder(root) });
  for (let frame = stack.at(-1); frame !== undefined; frame = stack.at(-1)) {
    const entry = frame.rest.pop();
    if (entry === undefined) {
      yield { type: "leave", path: frame.path, at: frame.at };
      stack.pop();
      continue;
    }
    const name = Buffer.from(entry.name, "latin1");
    const path = [...frame.path, pathComponent(new Uint8Array(name))];
    const at = Buffer.concat([frame.at, SLASH, name]);
    const type = expectStorable(at, entry.type ?? typeOf(await lstatEntry(at)));
    if (type === "directory") {
      yield { type: "enter", path, at };
      stack.push({ path, at, rest: await listFolder(at) });
    } else {
      yield { type, path, at };
    }
  }
}

const SLASH = Buffer.from("/");

async function listFolder(at: Buffer): Promise<ListedEntry[]> {
  try {
    const entries = await readdir(at, { encoding: "buffer", withFileTypes: true });
    const listed = entries.map((entry) => ({
      name: entry.name.toString("latin1"),
      type: typeOf(entry),
    }));
    return listed.sort((a, b) => (a.name < b.name ? 1 : -1));
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

async function lstatEntry(at: Buffer): Promise<Stats> {
  try {
    return await lstat(at);
  } catch (error) {
    throw fileError(error, at, "import");
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

function expectStorable(at: Buffer, type: FileType | undefined): "directory" | "file" | "symlink" {
  if (type === "directory" || type === "file" || type === "symlink") return type;
  throw new CastoreError(
    "invalid_argument",
    `Cannot import ${showFilePath(at)}: expected a folder, a regular file or a symlink, found ` +
      `a ${type ?? "file of unknown type"}`,
  );
}
