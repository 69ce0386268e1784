import { blake3Digest } from "../src/hash/blake3-digest.ts";
import {
  type B3Digest,
  Directory,
  type DirectoryService,
  encodeDirectory,
  pathComponent,
} from "../src/index.ts";

/** A tree of two directories, leaf and root, another one for each name. */
export function treeOf(name: string): readonly [leaf: Directory, root: Directory] {
  const digest = blake3Digest(Buffer.from(name));
  const file = { type: "file", digest, size: 1n, executable: false } as const;
  const leaf = Directory.from([{ name: pathComponent(name), node: file }]);
  const node = {
    type: "directory",
    digest: encodeDirectory(leaf).digest,
    size: leaf.size,
  } as const;
  return [leaf, Directory.from([{ name: pathComponent("leaf"), node }])];
}

export async function putTree(
  service: DirectoryService,
  tree: readonly Directory[],
): Promise<B3Digest> {
  await using putter = service.openPutter();
  for (const directory of tree) await putter.put(directory);
  return await putter.close();
}
