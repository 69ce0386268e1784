import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import type { Node } from "../model/node.ts";
import type { DirectoryService } from "./directory-service.ts";

/** Something that a root node leads to. */
export type ClosureItem =
  | { readonly type: "directory"; readonly directory: Directory }
  | {
      readonly type: "blob";
      readonly digest: B3Digest;
      /** Length in bytes, as stated by the node that refers to it. */
      readonly size: bigint;
    };

/**
 * Finds everything that a root node leads to: each directory once, after one that refers to it, and each blob
 * once, after a directory that refers to it. Of what was met, digest and size are held, some 150 bytes each.
 *
 * @throws CastoreError, from iterating: `not_found` if there is no such root; `data_loss` if a directory below is
 *   missing or damaged, or two files of one digest are of different sizes
 */
export async function* walkClosure(
  directoryService: DirectoryService,
  root: Node,
  options?: AbortOptions,
): AsyncGenerator<ClosureItem> {
  options?.signal?.throwIfAborted();
  const sizes = new Map<string, bigint>();
  if (root.type === "file") yield { type: "blob", digest: root.digest, size: root.size };
  if (root.type !== "directory") return;
  let isEmpty = true;
  for await (const directory of directoryService.getRecursive(root.digest, options)) {
    isEmpty = false;
    yield { type: "directory", directory };
    for (const { node } of directory.encodedEntries) {
      if (node.type !== "file") continue;
      const { digest, size } = node;
      const known = sizes.get(digest.key);
      if (known === undefined) {
        sizes.set(digest.key, size);
        yield { type: "blob", digest, size };
      } else if (known !== size) {
        const sizesFound = `files of ${known} and of ${size} bytes`;
        throw new CastoreError(
          "data_loss",
          `Cannot walk the tree below ${root.digest}: blob ${digest} is that of ${sizesFound}`,
        );
      }
    }
  }
  if (isEmpty) {
    throw new CastoreError("not_found", `Cannot walk: directory ${root.digest} is missing`);
  }
}
