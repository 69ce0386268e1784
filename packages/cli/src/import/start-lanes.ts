import { existsSync, statSync } from "node:fs";
import { startLanes } from "@tvix/castore/lanes";
import { absolutePath } from "../arguments.ts";
import type { ImportCommandOptions } from "./import-paths.ts";
import { recordFile } from "./import-record.ts";

/**
 * Starts the threads of an import if it is going to read a folder. They take a tenth of a second, which goes by while the modules
 * of the import are loaded and stores opened, if this is called before.
 */
export function startLanesFor(paths: readonly string[], options: ImportCommandOptions): void {
  if (paths.some((path) => isReadFolder(path, options))) startLanes();
}

/** Whether a path is a folder, and no import of it before is remembered. */
function isReadFolder(
  argument: string,
  { name, exclude, references = "none", reread = false }: ImportCommandOptions,
): boolean {
  try {
    const path = absolutePath(argument);
    if (!statSync(path).isDirectory()) return false;
    if (reread || references !== "none") return true;
    const file = recordFile({ path, name, exclude });
    return file === undefined || !existsSync(file);
  } catch {
    return false; // the import tells what is wrong
  }
}
