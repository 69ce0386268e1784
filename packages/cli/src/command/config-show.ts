import { Command } from "commander";
import { addHelpEnd } from "./help-end.ts";

/** `tvix-store config show [COMMAND [ARGUMENT...]]` */
export function configShowCommand(): Command {
  const command = new Command("show")
    .description(
      "Prints the options of a command, and where each value comes from; secrets are masked",
    )
    .argument("[command]", "the command (default: daemon and import)")
    .argument("[argument...]", "arguments that the command would be given")
    .option("--json", "print an object of JSON")
    .passThroughOptions()
    .action(async (name: string | undefined, args: string[], options: ShowOptions) => {
      const { showConfig } = await import("../config/show-config.ts");
      const { run } = await import("../run.ts");
      const program = command.parent!.parent!;
      await run(({ signal }) => showConfig(program, { name, args, ...options, signal }));
    });
  return addHelpEnd(command, {
    examples: [
      ["tvix-store config show --config /etc/tvix-store.toml", "checks a configuration file"],
      ["tvix-store config show --json daemon -l '[::]:8000'", "shows what these arguments change"],
    ],
  });
}

/** Options of the command itself. */
interface ShowOptions {
  json?: boolean;
  config?: string;
}
