import { readlinkSync } from "node:fs";
import { CastoreError } from "@tvix/castore";
import { STORE_DIR } from "@tvix/store";
import { absolutePath } from "./arguments.ts";

/** How many symlinks are followed at most, as by Linux. */
const MAX_SYMLINKS = 40;

/** A path in the store dir. Its names are text of one character for each byte. */
export interface PathInStore {
  /** The names below the store dir: that of the store path first. They need not exist. */
  readonly names: readonly string[];
  /** Whether symlinks lead to it: the argument itself is another path. */
  readonly isFollowed: boolean;
}

/** Options of {@link leadIntoStore}. */
export interface LeadOptions {
  /** Whether to go on from a path below a store path, over the symlinks in it, until one is a store path. Default: false. */
  readonly toStorePath?: boolean;
}

/**
 * Follows the symlinks of a path of the local file system, such as the `result` of nix-build, name by name until it is in the
 * store dir. Returns the path there, `undefined` for one that does not lead there.
 *
 * @throws CastoreError `invalid_argument` for a path in a store dir of Nix that is not `/nix/store` (`NIX_STORE_DIR`)
 */
export function leadIntoStore(
  argument: string,
  { toStorePath = false }: LeadOptions = {},
): PathInStore | undefined {
  const storeDir = process.env.NIX_STORE_DIR || STORE_DIR;
  let at = ""; // without symlinks, or the store dir, which may be one
  let names = Buffer.from(absolutePath(argument)).toString("latin1").split("/").slice(1);
  for (let followed = 0; names.length > 0; ) {
    const reached = [at, ...names].join("/");
    if (reached.startsWith(`${storeDir}/`)) {
      const below = reached
        .slice(storeDir.length)
        .split("/")
        .filter((name) => !["", "."].includes(name));
      if (toStorePath ? below.length === 1 : below.length > 0) {
        assertStoreDir(storeDir, argument);
        return { names: below, isFollowed: followed > 0 };
      }
      if (at.length < storeDir.length) [at, names] = [storeDir, below];
    }
    const [name = "", ...rest] = names;
    const target = isName(name) ? linkTarget(`${at}/${name}`) : undefined;
    if (target !== undefined && followed < MAX_SYMLINKS) {
      followed += 1;
      if (target.startsWith("/")) at = "";
      names = [...target.split("/"), ...rest];
    } else {
      if (name === "..") at = at.slice(0, Math.max(at.lastIndexOf("/"), 0));
      else if (isName(name)) at += `/${name}`;
      names = rest;
    }
  }
  return undefined;
}

function isName(name: string): boolean {
  return !["", ".", ".."].includes(name);
}

/** Returns the target of a symlink; `undefined` for anything else. */
function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(Buffer.from(path, "latin1"), "buffer").toString("latin1");
  } catch {
    return undefined;
  }
}

function assertStoreDir(storeDir: string, argument: string): void {
  if (storeDir === STORE_DIR) return;
  throw new CastoreError(
    "invalid_argument",
    `Cannot use ${JSON.stringify(argument)} as a store path: expected the store dir "${STORE_DIR}", found "${storeDir}" (NIX_STORE_DIR), which contents of it refer to`,
  );
}
