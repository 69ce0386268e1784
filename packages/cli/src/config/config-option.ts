import type { Command } from "commander";
import { leafCommands } from "../command-tree.ts";
import type { ConfigFile } from "./config-file.ts";

/** The variable that names a configuration file, where the option does not. */
export const CONFIG_VARIABLE = "TVIX_STORE_CONFIG";

/**
 * Has the commands of a program take options from the file that `--config` or its variable names. Arguments and the
 * environment come before the file, defaults after it.
 *
 * @param args the arguments that the program is going to parse
 */
export async function useConfigFile(program: Command, args: readonly string[]): Promise<void> {
  const paths = possiblePaths(args);
  if (paths.length === 0) return;
  const { ConfigFile } = await import("./config-file.ts"); // few commands are given one
  const files = new Map<string, ConfigFile | Error>();
  for (const path of paths) {
    files.set(path, await ConfigFile.read(path, program).catch((error: Error) => error));
  }
  for (const command of leafCommands(program)) {
    const parse = command.parseOptions.bind(command);
    // Called by commander before it looks at the environment, at mandatory options and at conflicts.
    command.parseOptions = (args) => {
      const parsed = parse(args);
      if (parsed.unknown.some((arg) => arg === "--help" || arg === "-h")) return parsed;
      const file = files.get(command.opts().config ?? process.env[CONFIG_VARIABLE]);
      if (file instanceof Error) return command.error(`error: ${file.message}`);
      file?.apply(command);
      return parsed;
    };
  }
}

/** Whether some arguments, or the environment, may name a configuration file. */
export function mayHaveConfigFile(args: readonly string[]): boolean {
  return possiblePaths(args).length > 0;
}

/** Returns all that may be the path of a configuration file: which it is, shows when arguments are parsed. */
function possiblePaths(args: readonly string[]): string[] {
  const paths = args.flatMap((arg, i) => {
    if (arg.startsWith("--config=")) return [arg.slice("--config=".length)];
    return arg === "--config" ? args.slice(i + 1, i + 2) : [];
  });
  const variable = process.env[CONFIG_VARIABLE];
  return variable ? [...paths, variable] : paths;
}
