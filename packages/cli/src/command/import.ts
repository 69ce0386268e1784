import { Command } from "commander";
import { daemonAddresses, type ServiceOptions, serviceOptions } from "../addresses.ts";

/** `tvix-store import PATH...` */
export function importCommand(): Command {
  const command = new Command("import")
    .description("Stores files and folders, and prints the store path of each on stdout")
    .argument("<path...>", "a folder, a file or a symlink, named in the store as it is here")
    .option(
      "--references",
      "register to which store paths, of all that the PathInfo service has, the contents refer; " +
        "each PATH may refer to those before it",
    )
    .action(async (paths: string[], options: ServiceOptions & { references?: boolean }) => {
      const { importPaths } = await import("../import-paths.ts"); // no other command needs it
      const { run } = await import("../run.ts");
      await run((interrupt) => importPaths(paths, options, interrupt));
    });
  for (const option of serviceOptions(daemonAddresses())) command.addOption(option);
  return command;
}
