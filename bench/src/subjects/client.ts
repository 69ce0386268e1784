import { clientProgram } from "../build-clients.ts";
import type { Command } from "../subject.ts";

/** Runs one of the programs in `clients/`, a process of its own. */
export function clientCommand(name: string, ...args: string[]): Command {
  return { argv: [process.execPath, clientProgram(name), ...args] };
}
