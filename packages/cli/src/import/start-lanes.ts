import { existsSync, statSync } from "node:fs";
import { startLanes } from "@tvix/castore/lanes";
import { absolutePath } from "../arguments.ts";
import { recordFile } from "./import-record.ts";

/**
 * Starts the threads that an import of folders needs. They take a tenth of a second, which goes by while the modules of the
 * import are loaded and stores opened, if this is called before.
 *
 * @param options.remembers whether what was imported before, and is remembered, is not read again
 */
export function startLanesFor(
  paths: readonly string[],
  { remembers, ...source }: { name?: string; exclude?: readonly string[]; remembers: boolean },
): void {
  const isKnown = (path: string | Buffer) => {
    const file = remembers ? recordFile({ path, ...source }) : undefined;
    return file !== undefined && existsSync(file);
  };
  if (paths.map(absolutePath).some((path) => isFolder(path) && !isKnown(path))) startLanes();
}

function isFolder(path: string | Buffer): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
