import { Command } from "commander";
import type { ImportCommandOptions } from "../import/import-paths.ts";
import { daemonAddresses, type ServiceOptions, serviceOptions } from "../options/addresses.ts";
import { progressOptions } from "../options/progress-option.ts";
import { storeModeOption } from "../options/store-mode.ts";
import { wholeNumber } from "../options/whole-number.ts";
import { type TracingOptions, tracingOption } from "../telemetry/tracing-option.ts";
import { addHelpEnd, STATUSES } from "./help-end.ts";

/** Explains arguments that are store paths of the local Nix. */
const LOCAL_STORE =
  "A store path of the local Nix, also one that a symlink such as ./result leads to, keeps its name, references,\n" +
  "deriver, signatures and content address, as the database of Nix has them (in NIX_STATE_DIR), unless --name,\n" +
  "--exclude or --references asks for something else. What it refers to has to be stored before, or with --closure.";

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
      "--strip-components <number>",
      "drop so many names at the start of the paths in the archive, as GNU tar does",
      wholeNumber(/^[0-9]{1,6}$/, "a natural number"),
    )
    .option(
      "--name <name>",
      "name in the store, of a single path or of the archive (default: the last name of the path, " +
        "without .tar and the like)",
    )
    .option(
      "--references [what]",
      "register the store paths that the contents mention: auto, of all that the PathInfo service " +
        "knows, including the paths before it; none; or a file with the possible ones, one a line",
    )
    .option(
      "--exclude <pattern>",
      "leave out what the glob matches, and do not enter such folders; may be repeated. A pattern " +
        "with a slash is matched against the path below the root, any other against names at any " +
        "depth; one that ends with a slash matches folders only",
      (pattern: string, before: string[] = []) => [...before, pattern],
    )
    .option(
      "--reread",
      "read everything, also what was imported from the same path before and, by its times, sizes and inodes, has not " +
        "changed since",
    )
    .option(
      "--closure",
      "of a store path of the local Nix, import what it refers to as well, directly or indirectly",
    )
    .option("--json", "print an object of JSON for each path instead of its store path")
    .action(
      async (paths: string[], options: ServiceOptions & TracingOptions & ImportCommandOptions) => {
        const wrong = wrongUse(paths, options);
        if (wrong !== undefined) command.error(`error: ${wrong}`);
        const { startLanesFor } = await import("../import/start-lanes.ts");
        startLanesFor(paths, options);
        const { importPaths } = await import("../import/import-paths.ts"); // no other command needs it
        const { run } = await import("../run.ts");
        await run((interrupt) => importPaths(paths, options, interrupt));
      },
    );
  for (const option of progressOptions()) command.addOption(option);
  for (const option of serviceOptions(daemonAddresses())) command.addOption(option);
  return addHelpEnd(command.addOption(storeModeOption()).addOption(tracingOption()), {
    about: LOCAL_STORE,
    examples: [
      ["tvix-store import --closure ./result", "stores what nix-build made, with all it refers to"],
      ["tvix-store import ./src --exclude node_modules --exclude '*.o'", "leaves files out"],
      [
        "tvix-store import --archive src.tar.gz --strip-components 1 --name src",
        "stores what is in an archive, as a folder",
      ],
      [
        "curl -L https://example.org/src.tar.xz | tvix-store import --archive - --name src",
        "stores an archive as it comes",
      ],
      [
        "tvix-store import --json --references=auto ./lib ./app",
        "reports each path as JSON, and registers the store paths that its contents mention",
      ],
    ],
    statuses: { ...STATUSES, 0: "all were stored", 1: "some were not; the others were stored" },
  });
}

/** Returns what is wrong with a combination of arguments; `undefined` if it is valid. */
function wrongUse(
  paths: readonly string[],
  { archive, name, references, stripComponents, closure, exclude }: ImportCommandOptions,
): string | undefined {
  const other = { "--name": name, "--exclude": exclude, "--archive": archive };
  const [conflict] = Object.entries(other).find(([, value]) => value !== undefined) ?? [];
  if (closure && conflict !== undefined) {
    return `expected --closure without ${conflict}: store paths of Nix are imported as they are`;
  }
  if (archive === undefined) {
    if (paths.length === 0) {
      const hint = typeof references === "string" ? `; --references took "${references}"` : "";
      return `expected a path or --archive, found neither${hint}`;
    }
    if (stripComponents !== undefined) return "expected --strip-components with --archive only";
    if (name !== undefined && paths.length > 1) {
      return `expected --name with a single path, found ${paths.length}`;
    }
    return undefined;
  }
  if (paths.length > 0) return "expected either paths or --archive, found both";
  return archive === "-" && name === undefined ? "expected a --name for --archive -" : undefined;
}
