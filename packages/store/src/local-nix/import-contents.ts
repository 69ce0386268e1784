import { importPath, type Node } from "@tvix/castore";
import type {
  ContentServices,
  CopyContentsOptions,
  PathMetadata,
} from "../copy/store-path-source.ts";
import { StoreError } from "../errors.ts";
import { describeNar } from "../nar/describe-nar.ts";
import { NarHasher } from "../nar/nar-hasher.ts";
import { NarWriter } from "../nar/writer.ts";

/** The level that Nix compresses with. */
const DEFAULT_LEVEL = 3;

/**
 * Stores the contents of a store path that is in the file system, each file read once, and compares the NAR with what is
 * known of it.
 *
 * @param path where it is
 * @returns the root node, once everything is durable
 * @throws StoreError `data_loss` for another NAR; whatever `importPath` of @tvix/castore throws
 */
export async function importContents(
  path: string,
  { narSha256, narSize }: PathMetadata,
  to: ContentServices,
  { signal, onProgress, zstdLevel = DEFAULT_LEVEL }: CopyContentsOptions = {},
): Promise<Node> {
  const hasher = new NarHasher();
  const visitor = new NarWriter((bytes) => hasher.update(bytes));
  const node = await importPath(path, to, {
    visitor,
    zstdLevel,
    ...(signal && { signal }),
    ...(onProgress && { onProgress }),
  });
  visitor.finish();
  const found = describeNar(hasher.digest());
  const expected = describeNar({ narSha256, narSize });
  if (found === expected) return node;
  throw new StoreError(
    "data_loss",
    `Cannot import "${path}": expected a NAR of ${expected}, as Nix has registered, found ${found}; "nix-store --verify-path" tells what Nix makes of it`,
  );
}
