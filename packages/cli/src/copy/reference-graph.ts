import { text } from "node:stream/consumers";
import type { ReferenceGraph } from "@tvix/store/local-nix";
import { readInputFile } from "../read-input-file.ts";

/**
 * Reads a reference graph from a file, or from stdin for `-`.
 *
 * @throws CastoreError `invalid_argument` for a file that cannot be read, or is no reference graph
 */
export async function readReferenceGraph(path: string): Promise<ReferenceGraph> {
  const { ReferenceGraph } = await import("@tvix/store/local-nix");
  if (path === "-")
    return new ReferenceGraph(await text(process.stdin), "the reference graph in stdin");
  const name = `reference graph ${JSON.stringify(path)}`;
  return new ReferenceGraph((await readInputFile("reference graph", path)).toString(), name);
}
