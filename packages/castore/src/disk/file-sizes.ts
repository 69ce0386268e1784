import { readdir, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import type { StoreStatistics } from "../model/statistics.ts";
import { RESERVE_SUFFIXES } from "./reserve.ts";

/** Files that belong to a database, by what follows its path. */
const DATABASE_FILES = ["", "-wal", "-shm", ...RESERVE_SUFFIXES];

/** Returns how long the files of a database are, and what room is left beside them. Nothing for one in memory. */
export async function databaseSize(path: string): Promise<StoreStatistics> {
  if (path === ":memory:") return {};
  return await sizeOf(
    path,
    DATABASE_FILES.map((suffix) => path + suffix),
  );
}

/** Returns how long the files in a folder are, and what room is left beside them. */
export async function folderSize(folder: string): Promise<StoreStatistics> {
  const names = await readdir(folder).catch(() => []);
  return await sizeOf(
    folder,
    names.map((name) => join(folder, name)),
  );
}

async function sizeOf(path: string, files: readonly string[]): Promise<StoreStatistics> {
  let sizeBytes = 0;
  for (const file of files) sizeBytes += (await stat(file).catch(() => undefined))?.size ?? 0;
  const disk = await statfs(path).catch(() => undefined);
  return { sizeBytes, ...(disk && { freeBytes: disk.bavail * disk.bsize }) };
}
