import { fileURLToPath } from "node:url";
import type { Command } from "../subject.ts";

/** Runs one of the programs in `clients/`, a process of its own. */
export function clientCommand(name: string, ...args: string[]): Command {
  const file = fileURLToPath(new URL(`../clients/${name}.ts`, import.meta.url));
  return { argv: [process.execPath, file, ...args] };
}
