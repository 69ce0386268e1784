import { readFile } from "node:fs/promises";
import { CastoreError } from "@tvix/castore";
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
    const { code } = error as NodeJS.ErrnoException;
    const message = `Cannot read ${what} "${path}": the system answered ${code}`;
    throw new CastoreError("invalid_argument", message, { cause: error });
  }
}
