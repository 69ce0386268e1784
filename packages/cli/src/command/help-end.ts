import type { Command } from "commander";

/** What the help of a command says after its options. */
export interface HelpEnd {
  /** Explains the arguments. Default: nothing. */
  readonly about?: string;
  /** Command lines, and what each does. */
  readonly examples: readonly (readonly [command: string, does: string])[];
  /** All exit statuses. Default: those of a command that comes to an end by itself. */
  readonly statuses?: Statuses;
}

/** What exit statuses mean. */
type Statuses = Readonly<Record<number, string>>;

/** Those of a command that comes to an end by itself. */
export const STATUSES: Statuses = {
  0: "success",
  1: "something was refused or failed",
  130: "ended by SIGINT",
  141: "the reader of stdout has gone",
  143: "ended by SIGTERM",
};

/** Exit statuses of a command that serves until a signal ends it. */
export const SERVER_STATUSES: Statuses = {
  0: "stopped by SIGINT or SIGTERM, or by the end of its only connection",
  1: "could not start, or failed",
};

/** Adds examples and exit statuses to the end of the help of a command. */
export function addHelpEnd(command: Command, { about, examples, statuses }: HelpEnd): Command {
  if (about !== undefined) command.addHelpText("after", `\n${about}`);
  const lines = examples.map(([line, does]) => `  ${line}\n      ${does}`);
  return command
    .addHelpText("after", `\nExamples:\n${lines.join("\n")}`)
    .addHelpText("after", `\n${describeStatuses(statuses)}`);
}

/** Returns the part of a help that explains exit statuses. */
export function describeStatuses(statuses: Statuses = STATUSES): string {
  const lines = Object.entries(statuses).map(
    ([status, meaning]) => `  ${status.padEnd(5)}${meaning}`,
  );
  return `Exit status:\n${lines.join("\n")}`;
}
