import { Command, CommanderError } from "commander";
import manifest from "../package.json" with { type: "json" };
import { commandArguments } from "./arguments.ts";
import { catCommand } from "./command/cat.ts";
import { daemonCommand } from "./command/daemon.ts";
import { importCommand } from "./command/import.ts";
import { narBridgeCommand } from "./command/nar-bridge.ts";
import { tokenCommand } from "./command/token.ts";
import { reportOutputError, writeStderr, writeStdout } from "./output.ts";

/** Runs `tvix-store` with the arguments of this process and sets the exit status. */
export async function runProgram(): Promise<void> {
  const program = new Command("tvix-store")
    .description("A content-addressed store for Nix")
    .version(manifest.version)
    .addHelpText(
      "after",
      "\nExit status: 0 on success, 1 if anything was refused or failed, 130 after SIGINT, 143 after SIGTERM,\n" +
        "141 if the reader of stdout has gone.",
    )
    .addCommand(daemonCommand())
    .addCommand(narBridgeCommand())
    .addCommand(importCommand())
    .addCommand(catCommand())
    .addCommand(tokenCommand());
  for (const command of withSubcommands(program)) {
    // Commander itself would exit before the outcome of its writes is known.
    command.exitOverride().configureOutput({
      writeOut: (text) => void writeStdout(text).catch(reportOutputError),
      writeErr: writeStderr,
    });
  }
  try {
    await program.parseAsync(commandArguments(), { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    process.exitCode = error.exitCode;
  }
}

function withSubcommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withSubcommands)];
}
