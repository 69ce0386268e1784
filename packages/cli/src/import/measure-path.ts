import type { Dirent } from "node:fs";
import { lstat, readdir } from "node:fs/promises";
import type { EntryFilter } from "@tvix/castore";

/**
 * Adds up the lengths of the files below a path, for a forecast: what cannot be read counts as nothing.
 *
 * @param exclude leaves entries out, as an import does
 * @param onBytes receives the bytes of each folder, as they are found
 * @param signal ends it early
 */
export async function measurePath(
  path: string | Buffer,
  { exclude, onBytes, signal }: MeasureOptions,
): Promise<void> {
  const root = Buffer.from(path);
  const sizeOf = async (at: Buffer) => (await lstat(at).catch(() => undefined))?.size ?? 0;
  if (!(await lstat(root).catch(() => undefined))?.isDirectory()) {
    onBytes(await sizeOf(root));
    return;
  }
  const folders = [root];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    if (signal.aborted) return;
    const entries: Dirent<Buffer>[] = await readdir(folder, {
      withFileTypes: true,
      encoding: "buffer",
    }).catch(() => []);
    let bytes = 0;
    for (const entry of entries) {
      const at = Buffer.concat([folder, SLASH, entry.name]);
      if (exclude?.(at.subarray(root.length + 1), entry.isDirectory())) continue;
      if (entry.isDirectory()) folders.push(at);
      else if (entry.isFile()) bytes += await sizeOf(at);
    }
    onBytes(bytes);
  }
}

/** Options of {@link measurePath}. */
export interface MeasureOptions {
  readonly exclude?: EntryFilter | undefined;
  readonly onBytes: (bytes: number) => void;
  readonly signal: AbortSignal;
}

const SLASH = Buffer.from("/");
