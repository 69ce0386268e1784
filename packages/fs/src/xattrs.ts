import type { PackedNode } from "./packed-directory.ts";

/** The names under which a digest is shown: those of tvix and of snix, its successor. */
const NAMES = {
  directory: ["user.tvix.castore.directory.digest", "user.snix.castore.directory.digest"],
  file: ["user.tvix.castore.blob.digest", "user.snix.castore.blob.digest"],
  symlink: [],
} as const;

/** Returns the extended attributes of a node: its digest, as `b3:` and base64. The root has none. */
export function xattrsOf(node: PackedNode | undefined): ReadonlyMap<string, Buffer> {
  if (node === undefined || node.type === "symlink") return new Map();
  const value = `b3:${Buffer.from(node.digest, "latin1").toString("base64")}`;
  return new Map(NAMES[node.type].map((name) => [name, Buffer.from(value)]));
}
