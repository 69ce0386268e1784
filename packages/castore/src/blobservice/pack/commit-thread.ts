/**
 * The thread that writes to the packs of one store: waiting for the disk, and the work of SQLite, would
 * hold up the event loop.
 */
import { workerData } from "piscina";
import { type Failure, failureOf } from "../../worker/failure.ts";
import { type CommitGroup, type IncompleteBlob, PackWriter } from "./pack-writer.ts";

/** Options of the thread. */
export interface CommitThreadOptions {
  readonly folder: string;
  readonly maxPackSize: number;
}

/** Outcome of a commit. */
export interface CommitOutcome {
  /** Why nothing was committed; `undefined` if everything was, but for some blobs. */
  readonly failure?: Failure;
  readonly incomplete: readonly IncompleteBlob[];
}

let writer: PackWriter | undefined;

/** Commits a group. */
export async function commit(group: CommitGroup): Promise<CommitOutcome> {
  try {
    const { folder, maxPackSize } = workerData as CommitThreadOptions;
    writer ??= await PackWriter.open(folder, maxPackSize);
    return { incomplete: await writer.commit(group) };
  } catch (error) {
    return { failure: failureOf(error), incomplete: [] };
  }
}

/** Closes the store. */
export function close(): void {
  writer?.[Symbol.dispose]();
  writer = undefined;
}
