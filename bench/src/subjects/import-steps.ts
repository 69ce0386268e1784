import type { Command, Place, Step } from "../subject.ts";
import type { Tree } from "../trees/tree.ts";

/** What is imported in a row. */
export interface ImportTrees {
  readonly tree: Tree;
  /** A tree that shares most of its contents with the other, and is imported after it. */
  readonly changed?: Tree;
}

/** A tree into a new store, the same again, and one that is much like it. */
export function importSteps(
  { tree, changed }: ImportTrees,
  command: (place: Place, tree: string) => Command,
): Step[] {
  const step = (name: string, tree: Tree): Step => ({
    name,
    tree,
    command: (place) => command(place, tree.path),
  });
  return [
    step("first", tree),
    step("again", tree),
    ...(changed ? [step("10 % changed", changed)] : []),
  ];
}
