import { Command, CommanderError, type Option } from "commander";
import manifest from "../package.json" with { type: "json" };
import { commandArguments } from "./arguments.ts";
import { catCommand } from "./command/cat.ts";
import { addCommonOptions } from "./command/common-options.ts";
import { completeCommand, completionCommand } from "./command/completion.ts";
import { configCommand } from "./command/config.ts";
import { copyCommand } from "./command/copy.ts";
import { daemonCommand } from "./command/daemon.ts";
import { diffCommand } from "./command/diff.ts";
import { duCommand } from "./command/du.ts";
import { describeStatuses } from "./command/help-end.ts";
import { importCommand } from "./command/import.ts";
import { lsCommand } from "./command/ls.ts";
import { mountCommand } from "./command/mount.ts";
import { narCommand } from "./command/nar.ts";
import { narBridgeCommand } from "./command/nar-bridge.ts";
import { pathInfoCommand } from "./command/path-info.ts";
import { restoreCommand } from "./command/restore.ts";
import { signCommand } from "./command/sign.ts";
import { tokenCommand } from "./command/token.ts";
import { versionCommand } from "./command/version.ts";
import { virtiofsCommand } from "./command/virtiofs.ts";
import { leafCommands, plainArguments, withSubcommands } from "./command-tree.ts";
import { mayHaveConfigFile, useConfigFile } from "./config/config-option.ts";
import { configureNotices, type LogOptions } from "./terminal/notices.ts";
import { reportOutputError, writeStderr, writeStdout } from "./terminal/output.ts";

/** The commands by name, in the order of the help. */
const COMMANDS = new Map([
  ["daemon", daemonCommand],
  ["nar-bridge", narBridgeCommand],
  ["import", importCommand],
  ["copy", copyCommand],
  ["ls", lsCommand],
  ["cat", catCommand],
  ["nar", narCommand],
  ["restore", restoreCommand],
  ["path-info", pathInfoCommand],
  ["du", duCommand],
  ["diff", diffCommand],
  ["sign", signCommand],
  ["mount", mountCommand],
  ["virtiofs", virtiofsCommand],
  ["token", tokenCommand],
  ["config", configCommand],
  ["completion", completionCommand],
  ["complete", completeCommand],
  ["version", versionCommand],
]);

/** Commands that look at all others. A configuration file is checked against all of them, too. */
const OVERVIEWS: readonly string[] = ["complete", "config"];

/** Shows each option by its usual name: the long ones of others would leave the descriptions no room. */
const HELP = {
  optionTerm: ({ flags }: Option) => flags.replace(/^--experimental-[a-z-]+, /, ""),
};

/** Runs `tvix-store` with the arguments of this process and sets the exit status. */
export async function runProgram(): Promise<void> {
  const given = commandArguments();
  const program = createProgram(wantedCommands(given));
  const args = plainArguments(program, given);
  try {
    await useConfigFile(program, args);
    await program.parseAsync(args, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    process.exitCode = error.exitCode;
  }
}

/** Returns the names of the commands that are needed for some arguments: to make all of them takes ten milliseconds. */
function wantedCommands(args: readonly string[]): Iterable<string> {
  const [name = ""] = args;
  const isEnough = COMMANDS.has(name) && !OVERVIEWS.includes(name) && !mayHaveConfigFile(args);
  return isEnough ? [name] : COMMANDS.keys();
}

function createProgram(names: Iterable<string>): Command {
  const program = new Command("tvix-store")
    .description("A content-addressed store for Nix")
    .version(manifest.version, "-V, --version", "print the version")
    .helpOption("-h, --help", "show this help")
    .addHelpText("after", `\n${describeStatuses()}`)
    .hook("preAction", (_, command) => configureNotices(command.opts<LogOptions>()));
  for (const name of names) {
    program.addCommand(COMMANDS.get(name)!(), { hidden: name === "complete" });
  }
  for (const command of leafCommands(program)) addCommonOptions(command);
  for (const command of withSubcommands(program)) {
    // Commander itself would exit before the outcome of its writes is known.
    command
      .exitOverride()
      .configureHelp(HELP)
      .configureOutput({
        writeOut: (text) => void writeStdout(text).catch(reportOutputError),
        writeErr: writeStderr,
        outputError: (text, write) => write(text.replace(/^error: /, "tvix-store: ")),
      });
  }
  return program;
}
