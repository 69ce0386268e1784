/**
 * Reads a file or folder.
 *
 *   read-disk.ts KIND PATH
 */
import type { ReadKind } from "../subject.ts";
import { timedRead } from "./reads.ts";
import { reportWork } from "./report-work.ts";

const [kind, path] = process.argv.slice(2) as [ReadKind, string];
reportWork(await timedRead(kind, path));
