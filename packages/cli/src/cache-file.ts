import { renameSync, rmSync, writeFileSync } from "node:fs";

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

function removeIfThere(path: string): void {
  try {
    rmSync(path);
  } catch {
    // Then it stays.
  }
}
