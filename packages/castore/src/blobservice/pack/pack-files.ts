import {
  closeSync,
  constants,
  fdatasyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  truncateSync,
  writeSync,
  writevSync,
} from "node:fs";
import { join } from "node:path";
import { syncFolder } from "../../sqlite/database.ts";
import { systemError } from "../../system-error.ts";

/** How many buffers are given to the system at once. */
const MAX_BUFFERS = 512;

/** The path of a pack in the folder of a store. */
export function packPath(folder: string, pack: number): string {
  return join(packFolder(folder), `${pack.toString(16).padStart(8, "0")}.pack`);
}

/** The numbers of the packs in the folder of a store, in order. */
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

function packFolder(folder: string): string {
  return join(folder, "packs");
}

/** Makes the folder for packs, unless it is there. */
export function makePackFolder(folder: string): void {
  const path = packFolder(folder);
  try {
    mkdirSync(path, { recursive: true });
  } catch (error) {
    throw systemError(error, `Cannot make folder "${path}"`);
  }
}

/**
 * Writes parts one after the other into a pack, from `offset` on, and makes them durable.
 *
 * @throws CastoreError `resource_exhausted` if there is no room, `unavailable` and the like
 */
export function writePack(
  folder: string,
  pack: number,
  offset: number,
  parts: readonly Uint8Array[],
): void {
  const path = packPath(folder, pack);
  try {
    const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT, 0o644);
    try {
      let position = offset;
      for (let i = 0; i < parts.length; i += MAX_BUFFERS) {
        position += writeAll(fd, parts.slice(i, i + MAX_BUFFERS), position);
      }
      fdatasyncSync(fd);
    } finally {
      closeSync(fd);
    }
    if (offset === 0) syncFolder(packFolder(folder)); // it is new
  } catch (error) {
    throw systemError(error, `Cannot write pack "${path}"`);
  }
}

/** Cuts a pack off at a length, if that can be done. */
export function truncatePack(folder: string, pack: number, length: number): void {
  try {
    truncateSync(packPath(folder, pack), length);
  } catch {
    // It would only have saved room.
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
