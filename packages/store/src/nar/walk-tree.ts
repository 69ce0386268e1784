import type { AbortOptions, DirectoryService, Node } from "@tvix/castore";
import { StoreError } from "../errors.ts";
import { TreeReader } from "./tree-reader.ts";
import { type Place, type Step, walkSteps } from "./walk-steps.ts";

/** The path of a node below the root, as its name and the place of its folder; `undefined` for the root. */
export type TreePlace = Place | undefined;

/** One step of {@link walkTree}. A directory takes two: `enter` and `leave`. */
export type TreeStep = Exclude<Step, { readonly type: "begin" }>;

/**
 * Walks a tree in the order of its NAR: depth first, names sorted bytewise. The directories are read by one `getRecursive`;
 * memory does not depend on the size of the tree, but on its depth and the widest directory.
 *
 * @throws StoreError `not_found` if the root directory is missing; whatever the service throws: `data_loss` if a
 *   directory below is missing
 */
export async function* walkTree(
  root: Node,
  directoryService: Pick<DirectoryService, "getRecursive">,
  options?: AbortOptions,
): AsyncGenerator<TreeStep, undefined> {
  options?.signal?.throwIfAborted();
  await using tree = new TreeReader(root, directoryService, options);
  if (root.type === "directory" && (await tree.get(root.digest)) === undefined) {
    throw new StoreError("not_found", `Cannot read a tree: directory ${root.digest} is missing`);
  }
  for await (const steps of walkSteps(root, tree)) {
    for (const step of steps) {
      options?.signal?.throwIfAborted();
      if (step.type !== "begin") yield step; // only where a part is walked
    }
  }
  await tree.readAll(); // the directory service checks the tree as a whole at its end
}
