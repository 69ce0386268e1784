import type { EntryFilter } from "./entry-filter.ts";
import type { TarMember } from "./tar/reader.ts";

/** Which members of an archive are imported, and under which paths. */
export interface MemberSelection {
  /**
   * How many names at the start of each path are dropped, as by GNU tar: members with no more names are left out, and the
   * paths that hard links name are cut alike. Default: 0.
   */
  stripComponents?: number;
  /** Tells which members are left out, by what remains of their paths. Default: none. */
  exclude?: EntryFilter;
}

const SLASH = 0x2f;

/** Returns the path under which a member is imported; `undefined` if it is left out. */
export function selectMember(
  { path, type }: TarMember,
  { stripComponents = 0, exclude }: MemberSelection,
): Buffer | undefined {
  const rest = stripPath(path, stripComponents);
  if (rest.length === 0 && stripComponents > 0) return undefined;
  if (exclude === undefined) return rest;
  const names = namesOf(rest);
  for (let depth = 1; depth <= names.length; depth++) {
    const isFolder = depth < names.length || type === "directory";
    if (exclude(Buffer.from(names.slice(0, depth).join("/"), "latin1"), isFolder)) return undefined;
  }
  return rest;
}

/** Returns a path without its first names; empty if it has no more. As in GNU tar, `.` counts as a name. */
export function stripPath(path: Buffer, count = 0): Buffer {
  let at = 0;
  for (let i = 0; i < count; i++) {
    while (path[at] === SLASH) at += 1;
    const slash = path.indexOf(SLASH, at);
    if (slash < 0) return path.subarray(path.length);
    at = slash;
    while (path[at] === SLASH) at += 1;
  }
  return path.subarray(at);
}

/** Returns the names of a path as it is below the root, one character a byte. */
function namesOf(path: Buffer): string[] {
  const names = path.toString("latin1").split("/");
  return names.filter((name) => name !== "" && name !== ".");
}
