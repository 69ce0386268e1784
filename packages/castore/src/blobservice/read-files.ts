/** The task of lanes that reads files. */

import { blake3Digest } from "../hash/blake3-digest.ts";
import { type FilesRead, type ReadFilesTask, readFilesInto } from "./file-batch.ts";

/** Reads and hashes small files. */
export function readFiles(task: ReadFilesTask): FilesRead {
  return readFilesInto(task, blake3Digest);
}
