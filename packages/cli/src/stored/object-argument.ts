import { readlinkSync } from "node:fs";
import { type ObjectName, parseObjectName, STORE_DIR } from "@tvix/store";
import { absolutePath, argumentBytes } from "../arguments.ts";

/** How many symlinks are followed, as by Linux. */
const MAX_SYMLINKS = 40;

/**
 * Parses an argument that names something in a store. Any other argument is a path of the local file system that leads into
 * the store dir over symlinks, such as the `result` of nix-build. What is in the store dir need not exist.
 *
 * @throws StoreError `invalid_argument` for anything else
 */
export function objectArgument(argument: string): ObjectName {
  try {
    return parseObjectName(argumentBytes(argument));
  } catch (error) {
    if (isInStore(argument)) throw error;
    const path = Buffer.from(absolutePath(argument)).toString("latin1"); // one character for each byte
    const followed = followIntoStore(path);
    if (!isInStore(followed)) throw error;
    return parseObjectName(Buffer.from(followed, "latin1"));
  }
}

/** Follows symlinks until a path is in the store dir; returns the path as it is if none leads there. */
function followIntoStore(path: string): string {
  let at = ""; // without symlinks
  let names = path.split("/").slice(1);
  for (let followed = 0; names.length > 0; ) {
    const reached = [at, ...names].join("/");
    if (isInStore(reached)) return reached;
    const [name = "", ...rest] = names;
    const target = name === "" ? undefined : linkTarget(`${at}/${name}`);
    if (target === undefined || followed === MAX_SYMLINKS) {
      if (name === "..") at = at.slice(0, Math.max(at.lastIndexOf("/"), 0));
      else if (name !== "" && name !== ".") at += `/${name}`;
      names = rest;
    } else {
      followed += 1;
      if (target.startsWith("/")) at = "";
      names = [...target.split("/"), ...rest];
    }
  }
  return path;
}

function isInStore(path: string): boolean {
  return path.startsWith(`${STORE_DIR}/`);
}

/** Returns the target of a symlink; `undefined` for anything else. */
function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(Buffer.from(path, "latin1"), "buffer").toString("latin1");
  } catch {
    return undefined;
  }
}
