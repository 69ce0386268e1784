import { Command } from "commander";
import { daemonAddresses, type ServiceOptions, serviceOptions } from "../addresses.ts";
import type { ImportCommandOptions } from "../import-paths.ts";
import { useSmallHeap } from "../small-heap.ts";
import { type TracingOptions, tracingOption } from "../tracing-option.ts";

/** `tvix-store import PATH...` and `tvix-store import --archive FILE` */
export function importCommand(): Command {
  const command = new Command("import")
    .description("Stores files and folders, and prints the store path of each on stdout")
    .argument("[path...]", "a folder, a file or a symlink, named in the store as it is here")
    .option(
      "--archive <file>",
      "import what is in a tar archive (also compressed by gzip, xz, zstd or bzip2) as a folder, " +
        'instead of PATHs; "-" is stdin',
    )
    .option(
      "--name <name>",
      "name of the archive in the store (default: that of the file, without .tar and the like)",
    )
    .option(
      "--references",
      "register to which store paths, of all that the PathInfo service has, the contents refer; " +
        "each PATH may refer to those before it",
    )
    .action(
      async (paths: string[], options: ServiceOptions & TracingOptions & ImportCommandOptions) => {
        const wrong = wrongUse(paths, options);
        if (wrong !== undefined) command.error(`error: ${wrong}`);
        // What is read of an archive goes through this thread, and would leave hundreds of megabytes of garbage.
        if (options.archive !== undefined) useSmallHeap();
        const { importPaths } = await import("../import-paths.ts"); // no other command needs it
        const { run } = await import("../run.ts");
        await run((interrupt) => importPaths(paths, options, interrupt));
      },
    );
  for (const option of serviceOptions(daemonAddresses())) command.addOption(option);
  return command.addOption(tracingOption());
}

/** What cannot be asked for together; `undefined` if all of it can. */
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
