import { Command } from "commander";
import { daemonAddresses, type ServiceOptions, serviceOptions } from "../addresses.ts";
import type { ImportCommandOptions } from "../import-paths.ts";
import { type TracingOptions, tracingOption } from "../tracing-option.ts";

/** `tvix-store import PATH...` and `tvix-store import --archive FILE` */
export function importCommand(): Command {
  const command = new Command("import")
    .description("Stores files and folders, and prints the store path of each on stdout")
    .argument("[path...]", "a folder, a file or a symlink; its last name is its name in the store")
    .option(
      "--archive <file>",
      "import the contents of a tar archive (plain, gzip, xz, zstd or bzip2) as a folder, " +
        'instead of paths; "-" is stdin',
    )
    .option(
      "--name <name>",
      "name of the archive in the store (default: the name of the file without .tar and the like)",
    )
    .option(
      "--references",
      "register the store paths that the contents mention, of all that the PathInfo service knows, " +
        "including the paths before it",
    )
    .action(
      async (paths: string[], options: ServiceOptions & TracingOptions & ImportCommandOptions) => {
        const wrong = wrongUse(paths, options);
        if (wrong !== undefined) command.error(`error: ${wrong}`);
        const { importPaths } = await import("../import-paths.ts"); // no other command needs it
        const { run } = await import("../run.ts");
        await run((interrupt) => importPaths(paths, options, interrupt));
      },
    );
  for (const option of serviceOptions(daemonAddresses())) command.addOption(option);
  return command.addOption(tracingOption());
}

/** Returns what is wrong with a combination of arguments; `undefined` if it is valid. */
function wrongUse(
  paths: readonly string[],
  { archive, name }: ImportCommandOptions,
): string | undefined {
  if (archive === undefined) {
    if (paths.length === 0) return "expected a path or --archive, found neither";
    return name === undefined ? undefined : "expected --name with --archive only";
  }
  if (paths.length > 0) return "expected either paths or --archive, found both";
  return archive === "-" && name === undefined ? "expected a --name for --archive -" : undefined;
}
