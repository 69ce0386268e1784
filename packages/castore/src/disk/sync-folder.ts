import { closeSync, fsyncSync, openSync } from "node:fs";

/** Makes entries that were created in a folder, or removed from it, durable. */
export function syncFolder(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
