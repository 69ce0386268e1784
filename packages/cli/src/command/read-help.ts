import type { Command } from "commander";
import { daemonAddresses, serviceOptions } from "../addresses.ts";
import { tracingOption } from "../tracing-option.ts";

/** Explains the arguments that name something in a store. */
const OBJECTS = `
An OBJECT is one of these, with the path of something below it if need be:
  /nix/store/HASH-NAME  a store path; HASH-NAME alone will do
  HASH                  the hash part of a store path, 32 characters
  b3:DIGEST             the digest of a directory or a file, in base64 or hexadecimal
  ./result              a local path that leads into /nix/store by a symlink`;

/** What the help of a command says at its end. */
interface ReadHelp {
  /** Command lines, and what each does. */
  readonly examples: readonly (readonly [command: string, does: string])[];
  /** What the exit statuses mean. Default: 0 on success, 1 if something was refused or failed. */
  readonly statuses?: string;
}

/** Adds the options of a command that reads a store, and the end of its help. */
export function addReadOptions(
  command: Command,
  {
    examples,
    statuses = "0 on success, 1 if anything was refused or failed (the rest is done all the same)",
  }: ReadHelp,
): Command {
  for (const option of serviceOptions(daemonAddresses())) command.addOption(option);
  const lines = examples.map(([line, does]) => `  ${line}\n      ${does}`);
  return command
    .addOption(tracingOption())
    .addHelpText("after", OBJECTS)
    .addHelpText("after", `\nExamples:\n${lines.join("\n")}`)
    .addHelpText(
      "after",
      `\nExit status: ${statuses},\n130 after SIGINT, 141 if the reader of stdout has gone.`,
    );
}
