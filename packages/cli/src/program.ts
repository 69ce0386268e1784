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
import { useConfigFile } from "./config/config-option.ts";
import { configureNotices, type LogOptions } from "./terminal/notices.ts";
import { reportOutputError, writeStderr, writeStdout } from "./terminal/output.ts";

/** Shows each option by its usual name: the long ones of others would leave the descriptions no room. */
const HELP = {
  optionTerm: ({ flags }: Option) => flags.replace(/^--experimental-[a-z-]+, /, ""),
};

/** Runs `tvix-store` with the arguments of this process and sets the exit status. */
export async function runProgram(): Promise<void> {
  const program = createProgram();
  const args = plainArguments(program, commandArguments());
  try {
    await useConfigFile(program, args);
    await program.parseAsync(args, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    process.exitCode = error.exitCode;
  }
}

function createProgram(): Command {
  const program = new Command("tvix-store")
    .description("A content-addressed store for Nix")
    .version(manifest.version, "-V, --version", "print the version")
    .helpOption("-h, --help", "show this help")
    .addHelpText("after", `\n${describeStatuses()}`)
    .addCommand(daemonCommand())
    .addCommand(narBridgeCommand())
    .addCommand(importCommand())
    .addCommand(copyCommand())
    .addCommand(lsCommand())
    .addCommand(catCommand())
    .addCommand(narCommand())
    .addCommand(restoreCommand())
    .addCommand(pathInfoCommand())
    .addCommand(duCommand())
    .addCommand(diffCommand())
    .addCommand(signCommand())
    .addCommand(mountCommand())
    .addCommand(virtiofsCommand())
    .addCommand(tokenCommand())
    .addCommand(configCommand())
    .addCommand(completionCommand())
    .addCommand(completeCommand(), { hidden: true })
    .addCommand(versionCommand())
    .hook("preAction", (_, command) => configureNotices(command.opts<LogOptions>()));
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
