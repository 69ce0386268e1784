import { suggest } from "@tvix/castore";
import { parseToml, type TomlFile, tomlError } from "@tvix/castore/toml";
import { type Command, InvalidArgumentError, type Option } from "commander";
import { leafCommands, settingName, settingsOf, wordsOf } from "../command-tree.ts";
import { readTomlFile } from "../read-input-file.ts";

/** The attribute of the option that the addresses of stores exclude. */
const COMPOSITION = "storeComposition";

/** The attributes of the addresses of stores. */
const ADDRESSES = ["blobServiceAddr", "directoryServiceAddr", "pathInfoServiceAddr"];

/** A table of TOML. */
type Table = Readonly<Record<string, unknown>>;

/** A table of a configuration file, and the names that lead to it. */
interface Section {
  readonly table: Table;
  readonly path: readonly string[];
}

/**
 * A TOML file with values of options. Its keys are names of options without the dashes: those at its top apply to every
 * command that has the option, those in the table of a command, such as `[daemon]` or `[token.create]`, to that one.
 */
export class ConfigFile {
  readonly #values: ReadonlyMap<Command, ReadonlyMap<Option, unknown>>;

  private constructor(values: ReadonlyMap<Command, ReadonlyMap<Option, unknown>>) {
    this.#values = values;
  }

  /**
   * Reads a configuration file, for the commands of a program.
   *
   * @throws CastoreError `invalid_argument` for a file that cannot be read, an unknown key, and a wrong value
   */
  static async read(path: string, program: Command): Promise<ConfigFile> {
    const file = await readTomlFile("config file", path);
    const top: Section = { table: parseToml(file), path: [] };
    await refuseUnknown(file, top, program);
    const values = new Map<Command, ReadonlyMap<Option, unknown>>();
    for (const command of leafCommands(program)) {
      const own = new Map<Option, unknown>();
      for (const { table, path } of [top, sectionOf(command, top)]) {
        for (const option of settingsOf(command)) {
          const name = settingName(option);
          if (!Object.hasOwn(table, name)) continue;
          const refuse = (reason: string) =>
            tomlError(file, [...path, name], `key "${name}": ${reason}`);
          own.set(option, await parseValue(option, table[name], refuse));
        }
      }
      values.set(command, own);
    }
    return new ConfigFile(values);
  }

  /** Sets the options of a command that neither its arguments nor the environment set. */
  apply(command: Command): void {
    const isGiven = (attribute: string) => {
      const option = command.options.find((option) => option.attributeName() === attribute);
      const isInEnvironment = option?.envVar !== undefined && option.envVar in process.env;
      return isInEnvironment || command.getOptionValueSource(attribute) === "cli";
    };
    for (const [option, value] of this.#values.get(command) ?? []) {
      const attribute = option.attributeName();
      const exclude = attribute === COMPOSITION ? ADDRESSES : [];
      const excluding = ADDRESSES.includes(attribute) ? [COMPOSITION] : exclude;
      if ([attribute, ...excluding].some(isGiven)) continue;
      command.setOptionValueWithSource(attribute, value, "config");
    }
  }
}

/** Returns the table of a command, empty if the file has none. */
function sectionOf(command: Command, top: Section): Section {
  const path = wordsOf(command);
  let table = top.table;
  for (const word of path) table = Object.hasOwn(table, word) ? (table[word] as Table) : {};
  return { table, path };
}

/** Refuses keys and tables that no command has, in the section of a command and below it. */
async function refuseUnknown(file: TomlFile, { table, path }: Section, command: Command) {
  const all = path.length === 0 ? leafCommands(command) : [command];
  const names = [...new Set(all.flatMap(settingsOf).map(settingName))].sort();
  for (const [key, value] of Object.entries(table)) {
    const below = command.commands.find((below) => below.name() === key);
    const refuse = async (reason: string) => await tomlError(file, [...path, key], reason);
    if (isTable(value)) {
      if (below === undefined) {
        const commands = command.commands.map((below) => below.name());
        const hint = suggest(key, commands);
        throw await refuse(`unknown command "${key}"${hint && `: ${hint}`}`);
      }
      await refuseUnknown(file, { table: value, path: [...path, key] }, below);
    } else if (below !== undefined) {
      throw await refuse(`expected a table [${[...path, key].join(".")}], found a value`);
    } else if (!names.includes(key)) {
      const where = path.length === 0 ? "" : ` of "${path.join(" ")}"`;
      const hint = suggest(key, names);
      throw await refuse(`unknown option "${key}"${where}${hint && `: ${hint}`}`);
    }
  }
}

/** Returns the value of an option as if it had been given as an argument. */
async function parseValue(
  option: Option,
  value: unknown,
  refuse: (reason: string) => Promise<Error>,
): Promise<unknown> {
  const takesText = option.required || option.optional;
  if (typeof value === "boolean" && !option.required) return value;
  const texts = (option.variadic && Array.isArray(value) ? value : [value]).map(textOf);
  if (!takesText || texts.includes(undefined)) {
    const expected = takesText ? (option.variadic ? "strings" : "a string") : "true or false";
    throw await refuse(`expected ${expected}, found ${JSON.stringify(value)}`);
  }
  const { parseArg } = option;
  if (parseArg === undefined) return option.variadic ? texts : texts[0];
  let parsed: unknown;
  try {
    for (const text of texts) parsed = parseArg(text!, parsed);
  } catch (error) {
    if (!(error instanceof InvalidArgumentError)) throw error;
    throw await refuse(describe(error, option, texts));
  }
  return parsed;
}

function describe(
  { message }: Error,
  { argChoices }: Option,
  texts: readonly (string | undefined)[],
): string {
  const wrong = texts.find((text) => text !== undefined && !argChoices?.includes(text));
  if (argChoices === undefined || wrong === undefined) return message;
  return `found "${wrong}", ${suggest(wrong, argChoices)}`;
}

/** Returns the text that a value would be as an argument; `undefined` if it cannot be one. */
function textOf(value: unknown): string | undefined {
  const isScalar = ["string", "number", "bigint"].includes(typeof value);
  return isScalar ? String(value) : undefined;
}

function isTable(value: unknown): value is Table {
  return typeof value === "object" && !Array.isArray(value) && !(value instanceof Date);
}
