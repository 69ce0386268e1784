import { commandArguments, hasEscapedBytes } from "./arguments.ts";

/**
 * What V8 and the allocator are told when they start, and cannot be told later. Left alone, V8 lets garbage grow to
 * several times of what is in use, and glibc keeps memory apart for each thread, and what large buffers were in: a
 * daemon would hold twice as much memory, and be no more than a tenth faster.
 */
const FLAGS = ["--max-semi-space-size=2", "--heap-growing-percent=30"];
const ENVIRONMENT = { MALLOC_ARENA_MAX: "1", MALLOC_MMAP_THRESHOLD_: "131072" };

/**
 * Has this process begin anew with a heap that stays small, unless it did: same process id, same arguments, same
 * files and environment. Options of V8 on the command line stay in force, and variables of the allocator that are set.
 */
export function useSmallHeap(): void {
  const { execArgv, execPath, argv, env } = process;
  if (process.execve === undefined || FLAGS.every((flag) => execArgv.includes(flag))) return;
  if (commandArguments().some(hasEscapedBytes)) return; // execve takes strings, which would not be these arguments
  // What was given comes last, and the last one counts.
  process.execve(execPath, [execPath, ...FLAGS, ...execArgv, ...argv.slice(1)], {
    ...ENVIRONMENT,
    ...env,
  });
}
