/**
 * The lane that writes to the packs of one store: waiting for the disk, and the work of SQLite, would
 * hold up the event loop.
 */
import { type CommitGroup, type IncompleteBlob, PackWriter } from "./pack-writer.ts";

/** A group to commit. */
interface CommitTask {
  readonly folder: string;
  readonly maxPackSize: number;
  readonly group: CommitGroup;
}

let writer: PackWriter | undefined;

/** Commits a group. Returns the blobs that were left out. */
export async function commit({
  folder,
  maxPackSize,
  group,
}: CommitTask): Promise<readonly IncompleteBlob[]> {
  writer ??= await PackWriter.open(folder, maxPackSize);
  return await writer.commit(group);
}

/** Closes the store. */
export function close(): void {
  writer?.[Symbol.dispose]();
  writer = undefined;
}
