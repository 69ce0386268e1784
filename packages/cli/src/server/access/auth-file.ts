import { readInputFile } from "../../read-input-file.ts";
import { type AuthRules, parseAuthRules } from "./auth-rules.ts";

/**
 * Reads an auth file.
 *
 * @throws CastoreError `invalid_argument` for a file that cannot be read, or is none
 */
export async function readAuthFile(path: string): Promise<AuthRules> {
  const text = (await readInputFile("auth file", path)).toString();
  return await parseAuthRules({ name: `auth file ${JSON.stringify(path)}`, text });
}
