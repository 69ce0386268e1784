import { commandArguments, hasEscapedBytes } from "../arguments.ts";
import { inheritedSockets } from "../server/inherited-sockets.ts";

/**
 * Options that glibc reads only at start. By default, it keeps an arena for each thread, and the memory of buffers that
 * were freed: with a thousand clients, a daemon would hold 290 MiB in place of 250.
 */
const ENVIRONMENT = { MALLOC_ARENA_MAX: "1", MALLOC_MMAP_THRESHOLD_: "1048576" };

/**
 * Option for a command whose objects live short: half of what the young generation of V8 has in other commands. Collecting it
 * more often takes no longer, as little of it is alive.
 */
export const SMALL_YOUNG_GENERATION = "--max-semi-space-size=1";

/**
 * Re-executes the process with options for a small heap of the C library; does nothing the second time, or where one of
 * them is set. Process id, arguments, stdin, stdout and stderr stay the same. Other open files would be closed, so it does
 * nothing either where systemd passed sockets: its unit sets the variables.
 *
 * @param options further options of Node.js, which override those that it was started with. Default: none
 */
export function useSmallMalloc(...options: readonly string[]): void {
  const { execArgv, execPath, argv, env } = process;
  if (process.execve === undefined || Object.keys(ENVIRONMENT).some((name) => name in env)) return;
  if (inheritedSockets().length > 0) return;
  if (commandArguments().some(hasEscapedBytes)) return; // execve takes strings, which cannot hold these arguments
  const args = [execPath, ...execArgv, ...options, ...argv.slice(1)];
  process.execve(execPath, args, { ...env, ...ENVIRONMENT });
}
