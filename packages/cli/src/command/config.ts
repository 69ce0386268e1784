import { Command } from "commander";
import { configShowCommand } from "./config-show.ts";
import { addHelpEnd } from "./help-end.ts";

/** `tvix-store config show` */
export function configCommand(): Command {
  const command = new Command("config")
    .description("Tells which values the options have")
    .enablePositionalOptions()
    .addCommand(configShowCommand());
  return addHelpEnd(command, {
    examples: [["tvix-store config show", "prints the options of daemon and import"]],
  });
}
