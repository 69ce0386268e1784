import { lstatSync, readlinkSync, realpathSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { CastoreError } from "@tvix/castore";
import { STORE_DIR, StorePath } from "@tvix/store";
import { absolutePath } from "../arguments.ts";

/** How many symlinks are followed at most, as by Linux. */
const MAX_SYMLINKS = 40;

/** A path of the file system that is a store path of a local Nix. */
export interface NixStorePath {
  readonly storePath: StorePath;
  /** Whether a symlink outside of the store dir leads to it. */
  readonly isFollowed: boolean;
}

/**
 * Returns the store path of a local Nix that an argument is, or leads to as a symlink, such as the `result` of nix-build;
 * `undefined` for any other path: also for one below a store path, one with a name that no store path has, and a symlink to
 * what is not there.
 *
 * @throws CastoreError `invalid_argument` for a store path of another store dir than `/nix/store`
 */
export function findNixStorePath(argument: string): NixStorePath | undefined {
  const first = absolutePath(argument);
  if (typeof first !== "string") return undefined; // a store path is ASCII
  let path = first;
  for (let followed = 0; followed <= MAX_SYMLINKS; followed++) {
    try {
      const folder = realpathSync(dirname(path));
      const storePath = storePathIn(folder, basename(path));
      if (storePath !== undefined) {
        const isThere = lstatSync(path, { throwIfNoEntry: false }) !== undefined;
        return isThere || followed === 0 ? { storePath, isFollowed: followed > 0 } : undefined;
      }
      path = resolve(folder, readlinkSync(path));
    } catch (error) {
      if (error instanceof CastoreError) throw error;
      return undefined; // neither there nor a symlink
    }
  }
  return undefined;
}

function storePathIn(folder: string, name: string): StorePath | undefined {
  const storeDir = process.env.NIX_STORE_DIR || STORE_DIR;
  if (folder !== storeDir) return undefined;
  if (storeDir !== STORE_DIR) {
    throw new CastoreError(
      "invalid_argument",
      `Cannot import "${folder}/${name}" as a store path: expected the store dir "${STORE_DIR}", found "${storeDir}" (NIX_STORE_DIR), which contents of it refer to`,
    );
  }
  try {
    return StorePath.parse(name);
  } catch {
    return undefined; // such as .links
  }
}
