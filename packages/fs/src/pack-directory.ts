import { type Directory, encodeDirectory } from "@tvix/castore";
import { EncodedEntries } from "@tvix/castore/encoded-entries";
import type { PackedBytes } from "./packed-directory.ts";

/** Packs a directory into memory that nobody else has. */
export function packDirectory(directory: Directory): PackedBytes {
  const { bytes, starts } =
    directory.encodedEntries ?? EncodedEntries.scan(encodeDirectory(directory).bytes)!;
  return { bytes: Uint8Array.from(bytes), starts: Uint32Array.from(starts) };
}
