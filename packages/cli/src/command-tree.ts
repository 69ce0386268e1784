import type { Command, Option } from "commander";

/** Returns a command and all below it. */
export function withSubcommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withSubcommands)];
}

/** Returns the commands that do something, rather than having subcommands. */
export function leafCommands(command: Command): Command[] {
  return withSubcommands(command).filter(({ commands }) => commands.length === 0);
}

/**
 * Returns arguments by which commander shows what they ask for: `help token create` as `token create --help`, and nothing
 * behind an unknown command, as commander would follow a `--help` there.
 */
export function plainArguments(program: Command, args: readonly string[]): readonly string[] {
  const asksForHelp = args[0] === "help" && args.length > 1;
  const plain = asksForHelp ? [...args.slice(1), "--help"] : args;
  let command = program;
  for (const [i, word] of plain.entries()) {
    if (command.commands.length === 0 || word.startsWith("-") || word === "help") break;
    const found = command.commands.find((below) => below.name() === word);
    if (found === undefined) return plain.slice(0, i + 1);
    command = found;
  }
  return plain;
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
