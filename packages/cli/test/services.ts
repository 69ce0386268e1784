import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { describe } from "vitest";

/**
 * Finds a program that a test needs and that is no part of this repository: in `$TVIX_SERVICES/bin`,
 * then on `PATH`. `undefined` if it is in neither.
 */
function findTool(name: string): string | undefined {
  const { TVIX_SERVICES, PATH = "" } = process.env;
  const folders = PATH.split(delimiter).filter((folder) => folder !== "");
  if (TVIX_SERVICES) folders.unshift(join(TVIX_SERVICES, "bin"));
  return folders.map((folder) => join(folder, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Describes tests that need programs, and skips them where one is missing, which the title then says.
 * The tests get the paths of the programs in the order of their names.
 */
export function describeWithTools(
  title: string,
  names: readonly string[],
  tests: (...paths: string[]) => void,
): void {
  const found = names.map(findTool);
  const missing = names.filter((_, i) => found[i] === undefined);
  const name = missing.length === 0 ? title : `${title} (missing: ${missing.join(", ")})`;
  describe.skipIf(missing.length > 0)(name, () => tests(...found.map((path) => path ?? "")));
}
