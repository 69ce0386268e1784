import type { Directory } from "@tvix/castore";
import type { PackedBytes } from "./packed-directory.ts";

/** Packs a directory into memory that nobody else has. */
export function packDirectory(directory: Directory): PackedBytes {
  const { bytes, starts } = directory.encodedEntries;
  return { bytes: Uint8Array.from(bytes), starts: Uint32Array.from(starts) };
}
