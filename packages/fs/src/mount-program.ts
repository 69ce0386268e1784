import { spawn } from "node:child_process";
import { stat } from "node:fs/promises";
import { CastoreError, type ErrorCode } from "@tvix/castore";

/** Number that the device has in the program that mounts. */
const CHILD_FD = 3;

/** errno texts of file systems whose process has gone. */
const STALE = new Set(["ENOTCONN", "ECONNABORTED", "EIO"]);

/**
 * Checks that a file system can be mounted on a folder.
 *
 * @throws CastoreError `not_found`, `invalid_argument`, or `unavailable` for one that a process left behind which crashed
 */
export async function expectMountPoint(folder: string): Promise<void> {
  const refuse = (code: ErrorCode, reason: string, cause?: unknown) =>
    new CastoreError(code, `Cannot mount on ${JSON.stringify(folder)}: ${reason}`, { cause });
  try {
    const stats = await stat(folder);
    if (!stats.isDirectory()) throw refuse("invalid_argument", "expected a folder, found a file");
  } catch (error) {
    if (error instanceof CastoreError) throw error;
    const { code = "", message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") {
      throw refuse("not_found", 'expected a folder, found nothing; make it with "mkdir"', error);
    }
    if (!STALE.has(code)) throw refuse("internal", message, error);
    const advice = `take it away with "umount -l ${folder}"`;
    throw refuse(
      "unavailable",
      `found a file system there whose process has gone; ${advice}`,
      error,
    );
  }
}

/**
 * Mounts the file system of an open FUSE device.
 *
 * @throws CastoreError `permission_denied` or `internal` with what the system says
 */
export async function mountDevice(
  fd: number,
  folder: string,
  { allowOther }: { allowOther: boolean },
): Promise<void> {
  const options = [
    "ro",
    "nosuid",
    "nodev",
    "default_permissions",
    `fd=${CHILD_FD}`,
    "rootmode=40000",
    `user_id=${process.getuid!()}`,
    `group_id=${process.getgid!()}`,
    ...(allowOther ? ["allow_other"] : []),
  ];
  const args = ["-i", "-t", "fuse.tvix-store", "-o", options.join(), "tvix-store", folder];
  const { status, stderr } = await run("mount", args, fd);
  if (status === 0) return;
  throw new CastoreError(
    status === 1 ? "permission_denied" : "internal",
    `Cannot mount on ${JSON.stringify(folder)}: ${stderr.trim() || `mount exited with ${status}`}`,
  );
}

/**
 * Takes a file system off a folder: also one that is in use, which stays until nobody uses it.
 *
 * @returns whether nobody uses it
 * @throws CastoreError `internal` with what the system says
 */
export async function unmount(folder: string): Promise<boolean> {
  const plain = await run("umount", ["-i", folder]);
  if (plain.status === 0 || /not mounted|no mount point/.test(plain.stderr)) return true;
  const lazy = await run("umount", ["-i", "-l", folder]);
  if (lazy.status === 0) return false;
  throw new CastoreError(
    "internal",
    `Cannot unmount ${JSON.stringify(folder)}: ${lazy.stderr.trim()}`,
  );
}

async function run(
  program: string,
  args: readonly string[],
  fd?: number,
): Promise<{ status: number | null; stderr: string }> {
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe", ...(fd ? [fd] : [])] });
  let stderr = "";
  child.stderr!.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  const status = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject).once("close", resolve);
  });
  return { status, stderr };
}
