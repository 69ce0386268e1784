import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { dirname } from "node:path";

/**
 * Returns why one of several files and folders cannot be written; `undefined` if all can, as far as permissions tell. One
 * that does not exist is taken for its folder, where it is to be created.
 */
export async function whyReadOnly(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) {
    const reason = await reasonOf(path);
    if (reason !== undefined) return reason;
  }
  return undefined;
}

async function reasonOf(path: string): Promise<string | undefined> {
  try {
    const { W_OK, X_OK } = constants;
    await access(path, (await stat(path)).isDirectory() ? W_OK | X_OK : W_OK);
    return undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const above = dirname(path);
    if (code === "ENOENT") return above === path ? undefined : await reasonOf(above);
    if (code === "EROFS") return `"${path}" is on a read-only file system`;
    if (code === "EACCES" || code === "EPERM") return `no permission to write to "${path}"`;
    return undefined; // the first use reports it
  }
}
