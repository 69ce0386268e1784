import { lstat, opendir, readFile } from "node:fs/promises";
import { join } from "node:path";

/** A tree that programs are given. */
export interface Tree {
  readonly name: string;
  readonly path: string;
  readonly files: number;
  /** Sum of the lengths of its files. */
  readonly bytes: number;
}

/** Finds out what is in a tree. */
export async function inspectTree(path: string, name: string): Promise<Tree> {
  let [files, bytes] = [0, 0];
  for await (const file of filesOf(path)) {
    files += 1;
    bytes += (await lstat(file)).size;
  }
  return { name, path, files, bytes };
}

/** Reads every file of a tree, so that the system has it in memory. */
export async function warm({ path }: Tree): Promise<void> {
  for await (const file of filesOf(path)) await readFile(file);
}

/** The regular files below a path, which may be one itself. */
export async function* filesOf(path: string): AsyncGenerator<string> {
  const found = await lstat(path);
  if (found.isFile()) yield path;
  if (!found.isDirectory()) return;
  for await (const entry of await opendir(path, { recursive: true })) {
    if (entry.isFile()) yield join(entry.parentPath, entry.name);
  }
}
