/** What a lane does that writes to packs: waiting for the disk, and the work of SQLite, would hold up the event loop. */
import { type CommitGroup, type IncompleteBlob, PackWriter } from "./pack-writer.ts";

/** A group to commit. */
interface CommitTask {
  /** Number of the store among those that this process writes to. */
  readonly store: number;
  readonly folder: string;
  readonly maxPackSize: number;
  readonly group: CommitGroup;
}

/** What this thread has open, by store. */
const writers = new Map<number, PackWriter>();

/** Commits a group: one at a time for a store. Returns the blobs that were left out. */
export async function commit({
  store,
  folder,
  maxPackSize,
  group,
}: CommitTask): Promise<readonly IncompleteBlob[]> {
  let writer = writers.get(store);
  if (writer === undefined) {
    writer = await PackWriter.open(folder, maxPackSize);
    writers.set(store, writer);
  }
  return await writer.commit(group);
}

/** Closes a store. */
export function close(store: number): void {
  const writer = writers.get(store);
  writers.delete(store);
  writer?.[Symbol.dispose]();
}
