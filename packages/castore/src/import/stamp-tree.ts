import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { EntryFilter } from "./entry-filter.ts";
import { TreeStamp } from "./tree-stamp.ts";
import { lstatEntry, TreeWalk } from "./walk.ts";

/** Most steps of the walk between two turns of the event loop. */
const STEPS_PER_TURN = 1024;

/**
 * Returns the stamp of a tree, which is the one that `importPath` would fill.
 *
 * @param path a folder, a file or a symlink, as bytes where it is not UTF-8
 * @param options.exclude tells which entries are left out, as with an import
 * @throws CastoreError as `importPath` for what cannot be listed
 */
export async function stampTree(
  path: string | Buffer,
  { exclude, signal }: AbortOptions & { exclude?: EntryFilter | undefined } = {},
): Promise<TreeStamp> {
  const stamp = new TreeStamp();
  const walk = new TreeWalk(Buffer.from(path), exclude);
  const limits = { maxSteps: STEPS_PER_TURN, maxFiles: STEPS_PER_TURN };
  for (;;) {
    const steps = await walk.take(limits);
    if (steps.length === 0) return stamp;
    for (const { type, at, stats } of steps) {
      if (type !== "leave") stamp.add(at, stats ?? lstatEntry(at));
    }
    await yieldToEvents();
    signal?.throwIfAborted();
  }
}
