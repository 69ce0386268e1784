import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/**
 * The path of a program: in the folder of services first, then in `PATH`.
 *
 * @param name the name of a program, or its path, which is only checked
 */
export function findProgram(name: string): string | undefined {
  if (name.includes("/")) return isExecutable(name) ? name : undefined;
  return programFolders()
    .map((folder) => join(folder, name))
    .find(isExecutable);
}

/** `PATH` with the folder of services first. */
export function programPath(): string {
  return programFolders().join(delimiter);
}

function programFolders(): string[] {
  const { TVIX_SERVICES, PATH = "" } = process.env;
  const services = TVIX_SERVICES ? [join(TVIX_SERVICES, "bin")] : [];
  return [...services, ...PATH.split(delimiter).filter((folder) => folder !== "")];
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
