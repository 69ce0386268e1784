import { readTomlFile } from "../../read-input-file.ts";
import { type AuthRules, parseAuthRules } from "./auth-rules.ts";

/**
 * Reads an auth file.
 *
 * @throws CastoreError `invalid_argument` for a file that cannot be read, or is none
 */
export async function readAuthFile(path: string): Promise<AuthRules> {
  return await parseAuthRules(await readTomlFile("auth file", path));
}
