import type { Command, Option } from "commander";

/** Where files are completed by the shell. */
const FILES = [":files"];

/**
 * Returns what the last of some words can become: lines with a candidate, a tab and its description, or `:files`, or
 * `:folders`, which the shell completes itself.
 *
 * @param words the words after the program, also `=` on its own, as bash has it
 */
export function completionsOf(program: Command, words: readonly string[]): string[] {
  const before = words.slice(0, -1).filter((word) => word !== "=");
  const last = words.at(-1) === "=" ? "" : (words.at(-1) ?? "");
  let command = program;
  let pending: Option | undefined;
  let onlyArguments = false;
  for (const word of before) {
    if (pending !== undefined) {
      pending = undefined;
    } else if (word === "--") {
      onlyArguments = true;
    } else if (word.startsWith("-") && !onlyArguments) {
      const option = command.options.find(({ long, short }) => long === word || short === word);
      if (option?.required) pending = option;
    } else {
      const { commands } = takesCommand(command) ? program : command;
      command = commands.find((below) => below.name() === word) ?? command;
    }
  }
  if (pending !== undefined) return valuesOf(pending).filter((line) => isCandidate(line, last));
  const [, name, value] = /^(--[^=]+)=(.*)$/s.exec(last) ?? [];
  if (name !== undefined) {
    const option = command.options.find(({ long }) => long === name);
    const lines = option === undefined ? [] : valuesOf(option);
    const candidates = lines.filter((line) => isCandidate(line, value!));
    return candidates.map((line) => (line.startsWith(":") ? line : `${name}=${line}`));
  }
  const isOption = last.startsWith("-") && !onlyArguments;
  const lines = isOption ? optionsOf(command) : wordsFor(takesCommand(command) ? program : command);
  return lines.filter((line) => isCandidate(line, last));
}

/** Tells whether the arguments of a command are another command, and what that is given. */
function takesCommand(command: Command): boolean {
  return command.registeredArguments[0]?.name() === "command";
}

function optionsOf(command: Command): string[] {
  const options = command.createHelp().visibleOptions(command);
  return options.map(({ long, description }) => `${long}\t${firstPart(description)}`);
}

function wordsFor(command: Command): readonly string[] {
  const below = command.createHelp().visibleCommands(command);
  if (below.length > 0) {
    return below.map((command) => `${command.name()}\t${firstPart(command.description())}`);
  }
  const [argument] = command.registeredArguments;
  return argument?.argChoices ?? (argument === undefined ? [] : FILES);
}

function valuesOf({ argChoices, flags }: Option): readonly string[] {
  if (argChoices !== undefined) return argChoices;
  if (/[<[](?:folder|mountpoint)/.test(flags)) return [":folders"];
  return /[<[](?:file|path|what)/.test(flags) ? FILES : [];
}

function isCandidate(line: string, start: string): boolean {
  return line.startsWith(":") || line.startsWith(start);
}

/** Returns the start of a description, up to the first mark. */
function firstPart(description: string): string {
  return /^[^,;:(\n]*/.exec(description)![0].trim();
}
