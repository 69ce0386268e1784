import { type Command, Option } from "commander";
import { CONFIG_VARIABLE } from "../config/config-option.ts";
import { LOG_FORMATS, LOG_LEVELS } from "../terminal/notices.ts";

/** The heading of the common options in the help. */
const GROUP = "Common options:";

/** Adds the options that every command has to one that does something. */
export function addCommonOptions(command: Command): void {
  const options = [
    new Option(
      "--config <file>",
      "a TOML file with values of options, by their names; options and variables come before it",
    ).env(CONFIG_VARIABLE),
    new Option("--log-level <level>", "lowest level of what is written on stderr")
      .env("LOG_LEVEL")
      .choices(LOG_LEVELS)
      .default("info"),
    new Option(
      "--log-format <format>",
      "format of what is written on stderr; auto is json for the log of a server that goes to no terminal, else pretty",
    )
      .env("LOG_FORMAT")
      .choices(LOG_FORMATS)
      .default("auto"),
    new Option("-q, --quiet", "write nothing but errors on stderr"),
  ];
  for (const option of options) command.addOption(option.helpGroup(GROUP));
  const help = new Option("-h, --help", "show this help").helpGroup(GROUP);
  command.addHelpOption(help);
}
