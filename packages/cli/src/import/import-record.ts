import { createHash } from "node:crypto";
import { join } from "node:path";
import { cacheFolder } from "../user-folders.ts";

/** What an import is of. */
export interface ImportSource {
  /** Absolute, as bytes where it is not UTF-8. */
  readonly path: string | Buffer;
  /** Its name in the store, if that is not the last name of the path. */
  readonly name?: string | undefined;
  /** Globs of what is left out. */
  readonly exclude?: readonly string[] | undefined;
}

/** Returns the file that remembers an import, if there is one; `undefined` for a user without a folder for caches. */
export function recordFile({ path, name, exclude = [] }: ImportSource): string | undefined {
  const cache = cacheFolder();
  if (cache === undefined) return undefined;
  const key = JSON.stringify([Buffer.from(path).toString("latin1"), name ?? null, exclude]);
  return join(cache, "imports", createHash("sha256").update(key).digest("hex"));
}
