import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmdirSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * Mounts a file system of a few megabytes in memory on a folder.
 *
 * @param options.files how many files and folders it can have
 */
export function mountSmallDisk(path: string, megabytes: number, options?: { files: number }): void {
  const limits = `size=${megabytes}m${options ? `,nr_inodes=${options.files}` : ""}`;
  execFileSync("mount", ["-t", "tmpfs", "-o", limits, "tmpfs", path], { stdio: "pipe" });
}

/** Fills a disk; returns the path of the file that fills it. */
export function fillDisk(path: string): string {
  const file = join(path, "ballast");
  const fd = openSync(file, "a");
  // Some file systems write nothing of a write that does not fit: the last bytes are written in small pieces.
  for (const length of [2 ** 20, 2 ** 14, 2 ** 9]) {
    try {
      for (const piece = Buffer.alloc(length, 1); ; ) writeSync(fd, piece);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    }
  }
  closeSync(fd);
  return file;
}

export function unmount(path: string): void {
  execFileSync("umount", [path]);
}

/** Whether this process may mount file systems, which takes root and some containers forbid. */
export const canMount: boolean = tryToMount();

function tryToMount(): boolean {
  const path = mkdtempSync(join(tmpdir(), "can-mount-"));
  try {
    mountSmallDisk(path, 1);
    unmount(path);
    return true;
  } catch {
    return false; // for whatever reason: the tests that need it say that they are skipped
  } finally {
    rmdirSync(path);
  }
}
