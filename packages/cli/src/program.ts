import { Command } from "commander";
import manifest from "../package.json" with { type: "json" };
import { daemonCommand } from "./command/daemon.ts";
import { importCommand } from "./command/import.ts";

/** The whole command line. */
export function program(): Command {
  return new Command("tvix-store")
    .description("A content-addressed store for Nix")
    .version(manifest.version)
    .addHelpText(
      "after",
      "\nExit status: 0 when everything was done, 1 when something was refused or failed, 130 or 143\n" +
        "when SIGINT or SIGTERM ended it early.",
    )
    .addCommand(daemonCommand())
    .addCommand(importCommand());
}
