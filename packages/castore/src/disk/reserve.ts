import { randomBytes } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { CastoreError } from "../model/errors.ts";
import { isSqliteError } from "./sqlite.ts";
import { syncFolder } from "./sync-folder.ts";

/**
 * Files that reserve disk space, by what follows the path of the database. Two, because SQLite creates two, and inodes may
 * run out.
 */
export const RESERVE_SUFFIXES: readonly string[] = ["-reserve1", "-reserve2"];

/** Length of each in bytes. SQLite needs 32 KiB, but XFS creates no file while less than 200 KiB are free. */
const FILE_BYTES = 256 * 1024;

/** Bytes per write: some file systems write nothing of a write that does not fit. */
const STEP_BYTES = 4 * 1024;

/** Number of attempts to open: another process may release or reserve space at the same time. */
const ATTEMPTS = 5;
const RETRY_MS = 10;

/** Error codes for a full disk. */
const NO_ROOM = ["ENOSPC", "EDQUOT"];

/**
 * Opens a database; on a full disk, in the space that {@link keepRoom} reserved. SQLite creates auxiliary files even to
 * read a closed database, one of them of 32 KiB.
 *
 * @param open is called again if the disk was full
 * @throws CastoreError `resource_exhausted` if the reserved space is not enough; the other errors of `open`
 */
export async function openInReserve<T>(path: string, open: () => Promise<T>): Promise<T> {
  let isKept = true;
  for (let attempt = 1; ; attempt++) {
    try {
      return await open();
    } catch (error) {
      if (!isForWantOfRoom(error, path)) throw error;
      if (attempt === ATTEMPTS) {
        if (!isKept) keepRoom(path);
        const message = `Cannot open database "${path}": expected room for the files that SQLite makes beside it, found a full disk`;
        throw new CastoreError("resource_exhausted", message, { cause: error });
      }
      if (giveRoom(path)) isKept = false;
    }
    await sleep(RETRY_MS);
  }
}

/**
 * Reserves space for opening a database when the disk is full, in files beside it, as far as there is space. Called
 * after each open and close, as the reserve may have been used.
 */
export function keepRoom(path: string): void {
  try {
    for (const suffix of RESERVE_SUFFIXES) fillUp(path + suffix);
  } catch {
    // The reserve is optional, and the next open tries again.
  }
}

/** Releases the reserved space; tells whether there was any. */
function giveRoom(path: string): boolean {
  const kept = RESERVE_SUFFIXES.map((suffix) => path + suffix).filter(
    (file) => sizeOf(file) !== undefined,
  );
  for (const file of kept) rmSync(file, { force: true });
  syncFolder(dirname(path)); // some file systems free the space only then
  return kept.length > 0;
}

function fillUp(file: string): void {
  if (sizeOf(file) === FILE_BYTES) return;
  const fd = openSync(file, constants.O_WRONLY | constants.O_CREAT, 0o644);
  try {
    let { size } = fstatSync(fd);
    while (size < FILE_BYTES) {
      const noise = randomBytes(STEP_BYTES); // a compressing file system stores zeros in no space
      size += writeSync(fd, noise, 0, Math.min(STEP_BYTES, FILE_BYTES - size), size);
    }
  } finally {
    closeSync(fd);
  }
}

function sizeOf(file: string): number | undefined {
  return statSync(file, { throwIfNoEntry: false })?.size;
}

function isForWantOfRoom(error: unknown, path: string): boolean {
  if (!isSqliteError(error)) return false;
  if (error.code === "SQLITE_FULL" || error.code === "SQLITE_IOERR_SHMSIZE") return true;
  return error.code === "SQLITE_CANTOPEN" && !hasRoomForFiles(path);
}

/** Tells whether SQLite can create its files: its error does not say that the disk is full. */
function hasRoomForFiles(path: string): boolean {
  const probes = ["-room-probe1", "-room-probe2"].map((suffix) => path + suffix);
  try {
    for (const probe of probes) closeSync(openSync(probe, "w"));
    return true;
  } catch (error) {
    return !NO_ROOM.includes(`${(error as NodeJS.ErrnoException).code}`);
  } finally {
    for (const probe of probes) rmSync(probe, { force: true });
  }
}
