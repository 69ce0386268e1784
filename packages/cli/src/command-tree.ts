import type { Command, Option } from "commander";

/** Returns a command and all below it. */
export function withSubcommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withSubcommands)];
}

/** Returns the commands that do something, rather than having subcommands. */
export function leafCommands(command: Command): Command[] {
  return withSubcommands(command).filter(({ commands }) => commands.length === 0);
}

/** Returns the words that name a command after the program, such as `["token", "create"]`. */
export function wordsOf(command: Command): string[] {
  return command.parent === null ? [] : [...wordsOf(command.parent), command.name()];
}

/** Returns the name of an option without the dashes; `progress` also for `--no-progress`. */
export function settingName(option: Option): string {
  return option.negate ? option.name().replace(/^no-/, "") : option.name();
}

/** Returns the options of a command that are settings: a configuration file can have them. */
export function settingsOf(command: Command): Option[] {
  return command.options.filter((option) => !["config", "version"].includes(option.name()));
}
