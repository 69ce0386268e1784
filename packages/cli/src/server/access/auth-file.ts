import { readFile } from "node:fs/promises";
import { CastoreError } from "@tvix/castore";
import { type AuthRules, parseAuthRules } from "./auth-rules.ts";

/**
 * Reads an auth file.
 *
 * @throws CastoreError `invalid_argument` for a file that cannot be read, or is none
 */
export async function readAuthFile(path: string): Promise<AuthRules> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    const reason = `the system answered ${(error as NodeJS.ErrnoException).code}`;
    throw new CastoreError("invalid_argument", `Cannot read auth file "${path}": ${reason}`, {
      cause: error,
    });
  }
  return parseAuthRules(text);
}
