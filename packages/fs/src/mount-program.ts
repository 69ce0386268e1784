import { closeSync, constants, openSync } from "node:fs";
import { stat } from "node:fs/promises";
import { CastoreError, type ErrorCode } from "@tvix/castore";
import { mountAsUser } from "./fusermount.ts";
import { startProgram } from "./run-program.ts";

/** A FUSE device whose file system is mounted on a folder. */
export interface MountedDevice {
  /** Its descriptor. */
  readonly fd: number;
  /**
   * Takes the file system off the folder: also one that is in use, which stays until nobody uses it.
   *
   * @returns whether nobody uses it
   * @throws CastoreError `internal` with what the system says
   */
  unmount(): Promise<boolean>;
  /** Closes the device, which fails what programs still wait for. */
  close(): void;
}

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
    const program = isRoot() ? "umount -l" : "fusermount3 -u -z";
    const advice = `take it away with "${program} ${folder}"`;
    throw refuse(
      "unavailable",
      `found a file system there whose process has gone; ${advice}`,
      error,
    );
  }
}

/**
 * Mounts a new FUSE device on a folder: by `mount` for root, by `fusermount3` for others.
 *
 * @throws CastoreError `permission_denied`, `unimplemented` or `internal` with what the system says
 */
export async function mountDevice(
  folder: string,
  options: { allowOther: boolean },
): Promise<MountedDevice> {
  return await (isRoot() ? mountAsRoot(folder, options) : mountAsUser(folder, options));
}

function isRoot(): boolean {
  return process.geteuid!() === 0;
}

async function mountAsRoot(
  folder: string,
  { allowOther }: { allowOther: boolean },
): Promise<MountedDevice> {
  const fd = openDevice();
  const options = [
    "ro",
    "nosuid",
    "nodev",
    "default_permissions",
    "fd=3",
    "rootmode=40000",
    `user_id=${process.getuid!()}`,
    `group_id=${process.getgid!()}`,
    ...(allowOther ? ["allow_other"] : []),
  ];
  const args = ["-i", "-t", "fuse.tvix-store", "-o", options.join(), "tvix-store", folder];
  try {
    const { status, stderr } = await startProgram("mount", args, { fd }).ended;
    if (status !== 0) {
      const reason = stderr.trim() || `mount exited with ${status}`;
      throw new CastoreError(
        status === 1 ? "permission_denied" : "internal",
        `Cannot mount on ${JSON.stringify(folder)}: ${reason}`,
      );
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return { fd, unmount: () => unmountAsRoot(folder), close: () => closeSync(fd) };
}

async function unmountAsRoot(folder: string): Promise<boolean> {
  const plain = await startProgram("umount", ["-i", folder]).ended;
  if (plain.status === 0 || /not mounted|no mount point/.test(plain.stderr)) return true;
  const lazy = await startProgram("umount", ["-i", "-l", folder]).ended;
  if (lazy.status === 0) return false;
  throw new CastoreError(
    "internal",
    `Cannot unmount ${JSON.stringify(folder)}: ${lazy.stderr.trim()}`,
  );
}

function openDevice(): number {
  try {
    return openSync("/dev/fuse", constants.O_RDWR);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason =
      code === "ENOENT" || code === "ENODEV" || code === "ENXIO"
        ? 'expected the device "/dev/fuse", found none; load it with "modprobe fuse"'
        : message;
    throw new CastoreError(
      code === "EACCES" || code === "EPERM" ? "permission_denied" : "unimplemented",
      `Cannot mount: ${reason}`,
      { cause: error },
    );
  }
}
