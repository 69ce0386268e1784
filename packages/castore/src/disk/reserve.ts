import { randomBytes } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import { CastoreError } from "../model/errors.ts";
import { syncFolder } from "./sync-folder.ts";

/** Files that hold the room. There are two because SQLite makes two, and it may be files that lack. */
const SUFFIXES = ["-reserve1", "-reserve2"];

/** Length of each in bytes. SQLite takes 32 KiB, but XFS makes no file while less than 200 KiB are free. */
const FILE_BYTES = 256 * 1024;

/** How much is written at a time: of what does not fit, some file systems write nothing. */
const STEP_BYTES = 4 * 1024;

/** How often opening is tried: another process may be giving back room just then, or keeping it again. */
const ATTEMPTS = 5;
const RETRY_MS = 10;

/** What the system answers when there is no room for another file. */
const NO_ROOM = ["ENOSPC", "EDQUOT"];

/**
 * Opens a database, if need be in the room that {@link keepRoom} kept. SQLite cannot even read from a database that
 * was closed without making files beside it, of which one takes 32 KiB.
 *
 * @param open is called again when it failed for want of room
 * @throws CastoreError `resource_exhausted` if there is no room all the same; whatever else `open` rejects with
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
 * Keeps room for opening a database when the disk is full, in files beside it: as much as there is. To be called
 * whenever it was opened or closed, as the room may have been used up.
 */
export function keepRoom(path: string): void {
  try {
    for (const suffix of SUFFIXES) fillUp(path + suffix);
  } catch {
    // Nothing depends on it yet, and whoever comes next tries again.
  }
}

/** Gives back the room that was kept; tells whether there was any. */
function giveRoom(path: string): boolean {
  const kept = SUFFIXES.map((suffix) => path + suffix).filter((file) => sizeOf(file) !== undefined);
  for (const file of kept) rmSync(file, { force: true });
  syncFolder(dirname(path)); // some file systems have the room no sooner
  return kept.length > 0;
}

function fillUp(file: string): void {
  if (sizeOf(file) === FILE_BYTES) return;
  const fd = openSync(file, constants.O_WRONLY | constants.O_CREAT, 0o644);
  try {
    let { size } = fstatSync(fd);
    while (size < FILE_BYTES) {
      const noise = randomBytes(STEP_BYTES); // zeros take no room where a file system compresses
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
  if (!(error instanceof Sqlite.SqliteError)) return false;
  if (error.code === "SQLITE_FULL" || error.code === "SQLITE_IOERR_SHMSIZE") return true;
  return error.code === "SQLITE_CANTOPEN" && !hasRoomForFiles(path);
}

/** Whether there is room for as many files as SQLite makes, which does not tell why it could not make one. */
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
