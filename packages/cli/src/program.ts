import { Command, CommanderError } from "commander";
import manifest from "../package.json" with { type: "json" };
import { commandArguments } from "./arguments.ts";
import { daemonCommand } from "./command/daemon.ts";
import { importCommand } from "./command/import.ts";
import { reportOutputError, writeStderr, writeStdout } from "./output.ts";

/** Runs `tvix-store` with the arguments of this process, and sets the exit status. */
export async function runProgram(): Promise<void> {
  const program = new Command("tvix-store")
    .description("A content-addressed store for Nix")
    .version(manifest.version)
    .addHelpText(
      "after",
      "\nExit status: 0 when everything was done, 1 when something was refused or failed, 130, 141 or 143\n" +
        "when SIGINT, the end of whoever reads stdout or SIGTERM ended it early.",
    )
    .addCommand(daemonCommand())
    .addCommand(importCommand());
  for (const command of [program, ...program.commands]) {
    // Commander would exit before the system has taken, or refused, what is written.
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
