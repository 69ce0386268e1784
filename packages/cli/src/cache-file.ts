import { readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** How long a file that nobody uses is kept, in milliseconds: 30 days. */
const KEPT_MS = 30 * 24 * 60 * 60 * 1000;

/** Writes a file in the user's folder for caches, whole, or not at all where the disk is full or only read. */
export function writeCacheFile(path: string, data: string | Uint8Array): void {
  const draft = `${path}.${process.pid}`;
  try {
    writeFileSync(draft, data, { mode: 0o600 });
    renameSync(draft, path);
  } catch {
    removeIfThere(draft);
  }
}

/**
 * Removes what nobody has written for 30 days from a folder of caches: files of an earlier release, or drafts of processes that
 * were killed. A file that is still in use is written again, or gets new times, before it is as old.
 */
export function sweepCacheFolder(folder: string): void {
  const oldest = Date.now() - KEPT_MS;
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    const found = statSync(path, { throwIfNoEntry: false }); // others sweep as well
    if (found?.isFile() && found.mtimeMs < oldest) removeIfThere(path);
  }
}

function removeIfThere(path: string): void {
  try {
    rmSync(path);
  } catch {
    // Then it stays.
  }
}
