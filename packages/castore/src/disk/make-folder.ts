import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { CastoreError } from "../model/errors.ts";
import { systemError } from "../model/system-error.ts";

/**
 * Makes a folder, and those above it, where there are none. The recursive `mkdir` of Node.js would never end on a file system
 * without folders that can be made, such as `/proc`.
 *
 * @param mode permissions of folders that it makes, less those that the process withholds. Default: all
 * @returns the uppermost folder that it made; `undefined` if it was there
 * @throws CastoreError `permission_denied` if the system refuses, `invalid_argument` if a file is in the way,
 *   `resource_exhausted` if there is no room
 */
export async function makeFolder(path: string, mode = 0o777): Promise<string | undefined> {
  try {
    return await make(path, mode);
  } catch (error) {
    const action = `Cannot make folder "${path}"`;
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST") {
      const message = `${action}: expected a folder or nothing there, found a file`;
      throw new CastoreError("invalid_argument", message, { cause: error });
    }
    if (code !== "ENOENT" && code !== "EROFS") throw systemError(error, action);
    const message = `${action}: expected a file system that can be written`;
    throw new CastoreError("permission_denied", message, { cause: error });
  }
}

async function make(path: string, mode: number): Promise<string | undefined> {
  try {
    return (await makeOne(path, mode)) ? path : undefined;
  } catch (error) {
    const above = dirname(path);
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" || above === path) throw error;
    const first = await make(above, mode);
    return (await makeOne(path, mode)) ? (first ?? path) : first;
  }
}

/** Makes a folder in one that is there; returns `false` if it was there itself. */
async function makeOne(path: string, mode: number): Promise<boolean> {
  try {
    await mkdir(path, mode);
    return true;
  } catch (error) {
    const found = await stat(path).catch(() => undefined);
    if (found?.isDirectory()) return false;
    throw error;
  }
}
