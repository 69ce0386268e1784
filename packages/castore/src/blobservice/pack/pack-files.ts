import {
  closeSync,
  constants,
  fdatasync as fdatasyncCallback,
  fdatasyncSync,
  openSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeSync,
  writevSync,
} from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { makeFolder } from "../../disk/make-folder.ts";
import { syncFolder } from "../../disk/sync-folder.ts";
import { systemError } from "../../model/system-error.ts";

const fdatasync = promisify(fdatasyncCallback);

/** A write of no more than this, in bytes, is synced in this thread: to wake another takes as long, where the disk is fast. */
const SMALL_BYTES = 64 * 1024;

/** How many buffers are given to the system at once. */
const MAX_BUFFERS = 512;

/** Returns the path of a pack in the folder of a store. */
export function packPath(folder: string, pack: number): string {
  return join(packFolder(folder), `${pack.toString(16).padStart(8, "0")}.pack`);
}

/** Lists the numbers of the packs in the folder of a store, in order. */
export function listPacks(folder: string): number[] {
  const path = packFolder(folder);
  try {
    const names = readdirSync(path).filter((name) => /^[0-9a-f]{8}\.pack$/.test(name));
    return names.sort().map((name) => Number.parseInt(name, 16));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw systemError(error, `Cannot list folder "${path}"`);
  }
}

/** Returns the folder of the packs of a store. */
export function packFolder(folder: string): string {
  return join(folder, "packs");
}

/** Makes the folder for packs, unless it is there. */
export async function makePackFolder(folder: string): Promise<void> {
  await makeFolder(packFolder(folder));
}

/** A write to one pack in one commit. */
export interface PackWrite {
  readonly pack: number;
  /** Whether the pack is begun with it. */
  readonly isNew: boolean;
  /** Where the first part goes. */
  readonly from: number;
  /** Parts, one after the other. */
  readonly parts: readonly Uint8Array[];
}

/**
 * Writes to a pack and makes it durable. When that fails, nothing of it stays.
 *
 * @throws CastoreError `resource_exhausted` if there is no room, `invalid_argument` if a pack that is new is there
 *   already, `unavailable` and the like
 */
export async function writePack(folder: string, write: PackWrite): Promise<void> {
  const { pack, isNew, from, parts } = write;
  const path = packPath(folder, pack);
  try {
    // Whatever is there was stored by somebody, even if the index does not know of it.
    const exclusive = isNew ? constants.O_EXCL : 0;
    const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | exclusive, 0o644);
    try {
      let position = from;
      for (let i = 0; i < parts.length; i += MAX_BUFFERS) {
        position += writeAll(fd, parts.slice(i, i + MAX_BUFFERS), position);
      }
      if (position - from <= SMALL_BYTES) fdatasyncSync(fd);
      else await fdatasync(fd); // the thread may have other things to do
    } catch (error) {
      takeBack(folder, write);
      throw error;
    } finally {
      closeSync(fd);
    }
    if (isNew) syncFolder(packFolder(folder));
  } catch (error) {
    throw systemError(error, `Cannot write pack "${path}"`);
  }
}

/** Removes the bytes of a failed write from a pack, if possible: nobody reads them, but they take room. */
export function takeBack(folder: string, { pack, isNew, from }: PackWrite): void {
  const path = packPath(folder, pack);
  try {
    if (isNew) rmSync(path);
    else truncateSync(path, from);
  } catch {
    // Nothing depends on it.
  }
}

/** Writes parts and gives their length. The system may take less than it is given. */
function writeAll(fd: number, parts: readonly Uint8Array[], position: number): number {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  let written = writevSync(fd, parts, position);
  if (written < length) {
    const all = Buffer.concat(parts);
    while (written < length) {
      written += writeSync(fd, all, written, length - written, position + written);
    }
  }
  return length;
}
