/** Reads of files that are timed alike in a mount and on a disk. */
import { execFile } from "node:child_process";
import { open, stat, writeFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { promisify } from "node:util";
import type { ReadKind, Work } from "../subject.ts";
import { integer, seeded } from "../trees/random.ts";
import { secondsOf } from "./report-work.ts";

const RANDOM_READS = 3000;
const RANDOM_BYTES = 4096;
/** How often a file is read that is in the page cache, which takes less than a tenth of a second. */
const REPETITIONS = 5;

/** Reads a file or folder, with nothing of it in the page cache, and returns what that took. */
export async function timedRead(kind: ReadKind, path: string): Promise<Work> {
  await dropPageCache();
  switch (kind) {
    case "tar":
      return await counted(
        "bytes",
        'tar -C "$1" -cf - "$2" | wc -c',
        dirname(path),
        basename(path),
      );
    case "find":
      return await counted("count", 'find "$1" | wc -l', path);
    case "sequential":
      return await readSequentially(path);
    case "again":
      await readSequentially(path);
      return await readSequentially(path, REPETITIONS);
    case "random":
      return await readAtRandom(path);
  }
}

/** Has the kernel forget contents, names and attributes of all files. */
async function dropPageCache(): Promise<void> {
  await promisify(execFile)("sync");
  await writeFile("/proc/sys/vm/drop_caches", "3"); // fails for users that are not root
}

/** Runs a script that prints how much it has read. */
async function counted(of: "bytes" | "count", script: string, ...args: string[]): Promise<Work> {
  let found = 0;
  const seconds = await secondsOf(async () => {
    const { stdout } = await promisify(execFile)("sh", ["-c", script, "sh", ...args]);
    found = Number(stdout);
  });
  return { seconds, [of]: found };
}

async function readSequentially(path: string, times = 1): Promise<Work> {
  const { size } = await stat(path);
  const seconds = await secondsOf(async () => {
    for (let i = 0; i < times; i++) {
      await promisify(execFile)("dd", [`if=${path}`, "of=/dev/null", "bs=1M", "status=none"]);
    }
  });
  return { seconds, bytes: size * times };
}

async function readAtRandom(path: string): Promise<Work> {
  await using file = await open(path);
  const { size } = await file.stat();
  const rng = seeded(19);
  const buffer = Buffer.alloc(RANDOM_BYTES);
  const seconds = await secondsOf(async () => {
    for (let i = 0; i < RANDOM_READS; i++) {
      const at = integer(rng, Math.floor(size / RANDOM_BYTES)) * RANDOM_BYTES;
      const { bytesRead } = await file.read(buffer, 0, RANDOM_BYTES, at);
      if (bytesRead !== RANDOM_BYTES)
        throw new Error(`Cannot use this run: read ${bytesRead} bytes`);
    }
  });
  return { seconds, count: RANDOM_READS };
}
