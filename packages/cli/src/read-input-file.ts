import { readFile } from "node:fs/promises";
import { CastoreError, systemReason } from "@tvix/castore";
import type { TomlFile } from "@tvix/castore/toml";
import { absolutePath } from "./arguments.ts";

/**
 * Reads a file that an option names.
 *
 * @param what what the file is, for the message, such as "auth file"
 * @throws CastoreError `invalid_argument` if it cannot be read
 */
export async function readInputFile(what: string, path: string): Promise<Buffer> {
  try {
    return await readFile(absolutePath(path));
  } catch (error) {
    const reason = systemReason(error as NodeJS.ErrnoException);
    const message = `Cannot read ${what} ${JSON.stringify(path)}: ${reason}`;
    throw new CastoreError("invalid_argument", message, { cause: error });
  }
}

/** Reads a file of TOML, as {@link readInputFile} does. */
export async function readTomlFile(what: string, path: string): Promise<TomlFile> {
  const name = `${what} ${JSON.stringify(path)}`;
  return { name, text: (await readInputFile(what, path)).toString() };
}
