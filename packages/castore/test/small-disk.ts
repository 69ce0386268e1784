import { execFileSync } from "node:child_process";
import { mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Mounts a file system of a few megabytes in memory on a folder. */
export function mountSmallDisk(path: string, megabytes: number): void {
  const options = { stdio: "pipe" } as const;
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${megabytes}m`, "tmpfs", path], options);
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
