import { type AbortOptions, CastoreError, suggest } from "@tvix/castore";
import type { Command, Option } from "commander";
import { settingName, settingsOf, wordsOf } from "../command-tree.ts";
import { writeStdout } from "../terminal/output.ts";
import { CONFIG_VARIABLE } from "./config-option.ts";
import { maskAddress } from "./masked-address.ts";

/** Options of {@link showConfig}. */
interface ShowConfigOptions extends AbortOptions {
  /** Name of a command. Default: daemon and import. */
  name?: string | undefined;
  /** Arguments that the command would be given. */
  args: readonly string[];
  /** Path of a configuration file. */
  config?: string | undefined;
  json?: boolean | undefined;
}

/** The value of an option, and where it comes from. */
interface Setting {
  readonly value: unknown;
  readonly source: "flag" | "environment" | "file" | "default" | "none";
  /** Name of the variable, or path of the file. */
  readonly from?: string | undefined;
}

/**
 * Prints the options of commands, and where each value comes from.
 *
 * @throws CastoreError `invalid_argument` if there is no such command
 */
export async function showConfig(program: Command, options: ShowConfigOptions): Promise<void> {
  const { name, args, json, signal } = options;
  const shown: Record<string, Record<string, Setting>> = {};
  for (const words of name === undefined ? [["daemon"], ["import"]] : [[name, ...args]]) {
    const { command, rest } = find(program, words);
    shown[wordsOf(command).join(" ")] = await settingsIn(command, rest, options.config);
  }
  const text = json ? JSON.stringify(shown) : Object.entries(shown).map(describe).join("\n\n");
  await writeStdout(`${text}\n`, { signal });
}

/** Finds the command that words begin with; the rest are its arguments. */
function find(parent: Command, words: readonly string[]): { command: Command; rest: string[] } {
  const [name = "", ...rest] = words;
  const command = parent.commands.find((command) => command.name() === name);
  if (command?.commands.length === 0) return { command, rest };
  if (command !== undefined) return find(command, rest);
  const known = parent.createHelp().visibleCommands(parent);
  const names = known.map((command) => command.name()).filter((name) => name !== "help");
  const unknown = [...wordsOf(parent), ...words.slice(0, 1)].join(" ");
  const message = `Cannot show the options of "${unknown}": ${suggest(name, names)}`;
  throw new CastoreError("invalid_argument", message);
}

async function settingsIn(
  command: Command,
  args: readonly string[],
  config: string | undefined,
): Promise<Record<string, Setting>> {
  for (const argument of command.registeredArguments) argument.required = false;
  for (const option of command.options) option.mandatory = false;
  command.action(() => undefined);
  const given = config === undefined ? args : ["--config", config, ...args];
  await command.parseAsync([...given], { from: "user" });
  const file = config ?? process.env[CONFIG_VARIABLE];
  return Object.fromEntries(
    settingsOf(command).map((option) => [settingName(option), settingOf(command, option, file)]),
  );
}

function settingOf(command: Command, option: Option, file: string | undefined): Setting {
  const name = option.attributeName();
  const value = masked(command.getOptionValue(name));
  switch (command.getOptionValueSource(name)) {
    case "cli":
      return { value, source: "flag" };
    case "env":
      return { value, source: "environment", from: option.envVar };
    case "config":
      return { value, source: "file", from: file };
    case undefined:
      return { value: null, source: "none" };
    default:
      return { value: option.defaultValueDescription ?? value, source: "default" };
  }
}

/** Returns a value without secrets, which are in addresses. */
function masked(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(masked);
  return typeof value === "string" && value.includes("://") ? maskAddress(value) : value;
}

function describe([command, settings]: readonly [string, Record<string, Setting>]): string {
  const rows = Object.entries(settings).map(([name, { value, source, from }]) => {
    const text = value === null ? "-" : [value].flat().join(" ") || '""';
    return [name, text, source === "none" ? "" : from === undefined ? source : `${source} ${from}`];
  });
  const [first = 0, second = 0] = [0, 1].map((i) => Math.max(...rows.map((row) => row[i]!.length)));
  const lines = rows.map(([name, value, source]) =>
    `  ${name!.padEnd(first)}  ${value!.padEnd(Math.min(second, 60))}  ${source}`.trimEnd(),
  );
  return [command, ...lines].join("\n");
}
