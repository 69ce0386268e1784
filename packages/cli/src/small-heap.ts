import { commandArguments, hasEscapedBytes } from "./arguments.ts";

/**
 * Options that V8 and the allocator read only at start. By default, V8 lets the heap grow to several times its live size,
 * and glibc keeps an arena for each thread and the memory of freed large buffers: a daemon would hold twice as much
 * memory and be at most a tenth faster.
 */
const FLAGS = ["--max-semi-space-size=2", "--heap-growing-percent=30"];
const ENVIRONMENT = { MALLOC_ARENA_MAX: "1", MALLOC_MMAP_THRESHOLD_: "131072" };

/**
 * Re-executes the process with options for a small heap; does nothing the second time. Process id, arguments, open files
 * and environment stay the same. Options of V8 on the command line, and variables of the allocator that are set, take
 * precedence.
 */
export function useSmallHeap(): void {
  const { execArgv, execPath, argv, env } = process;
  if (process.execve === undefined || FLAGS.every((flag) => execArgv.includes(flag))) return;
  if (commandArguments().some(hasEscapedBytes)) return; // execve takes strings, which cannot hold these arguments
  // V8 takes the last of equal options, so those of the user come last.
  process.execve(execPath, [execPath, ...FLAGS, ...execArgv, ...argv.slice(1)], {
    ...ENVIRONMENT,
    ...env,
  });
}
