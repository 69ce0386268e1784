import { commandArguments, hasEscapedBytes } from "../arguments.ts";
import { inheritedSockets } from "../server/inherited-sockets.ts";

/**
 * Options that glibc reads only at start. By default, it keeps an arena for each thread, and the memory of buffers that
 * were freed: with a thousand clients, a daemon would hold 290 MiB in place of 250.
 */
const ENVIRONMENT = { MALLOC_ARENA_MAX: "1", MALLOC_MMAP_THRESHOLD_: "1048576" };

/**
 * Half of what the young generation of V8 has in other commands. Collecting it more often takes no longer, as little of it is
 * alive; and it frees buffers of sockets before there are so many that V8 collects the whole heap for them.
 */
const SMALL_YOUNG_GENERATION = "--max-semi-space-size=1";

/**
 * Re-executes the process with options for a small heap of the C library and of V8; does nothing the second time, or where one
 * of the former is set. Process id, arguments, stdin, stdout and stderr stay the same. Other open files would be closed, so it does
 * nothing either where systemd passed sockets: its unit sets the variables.
 */
export function useSmallMalloc(): void {
  const { execArgv, execPath, argv, env } = process;
  if (process.execve === undefined || Object.keys(ENVIRONMENT).some((name) => name in env)) return;
  if (inheritedSockets().length > 0) return;
  if (commandArguments().some(hasEscapedBytes)) return; // execve takes strings, which cannot hold these arguments
  const args = [execPath, ...execArgv, SMALL_YOUNG_GENERATION, ...argv.slice(1)]; // the last of equal options counts
  process.execve(execPath, args, { ...env, ...ENVIRONMENT });
}
