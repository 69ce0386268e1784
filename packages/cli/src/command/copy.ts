import { Command, InvalidArgumentError, Option } from "commander";
import type { CopyCommandOptions } from "../copy/copy-paths.ts";
import { daemonAddresses, type ServiceOptions, serviceOptions } from "../options/addresses.ts";
import { progressOptions } from "../options/progress-option.ts";
import { storeModeOption } from "../options/store-mode.ts";
import { type TracingOptions, tracingOption } from "../telemetry/tracing-option.ts";
import { addHelpEnd, STATUSES } from "./help-end.ts";

/** Explains the addresses of stores. */
const STORES = `A STORE is one of these:
  grpc+http://HOST:PORT, grpc+https://..., grpc+unix:///SOCKET  a daemon
  /FOLDER, ./FOLDER                                             the embedded stores in a folder
  FILE.toml                                                     a composition, as --store-composition has it
  nix+https://HOST?trusted-public-keys=KEYS                     a binary cache of Nix, to copy from
  local, local?root=/FOLDER, local?real=/STORE&state=/VAR/NIX   a local Nix, to copy from

What was copied before a failure or Ctrl-C stays, and is not copied again.`;

/** `tvix-store copy --from STORE --to STORE PATH...` and `tvix-store copy REFERENCE_GRAPH` */
export function copyCommand(): Command {
  const command = new Command("copy")
    .description(
      "Copies store paths from one store to another, as far as the latter lacks their contents, and " +
        "prints those that were copied",
    )
    .argument(
      "[path...]",
      "a store path, its base name, its hash part, or a symlink to one; without --from and --to, the " +
        'JSON file with a reference graph, "-" for stdin (default: that in NIX_ATTRS_JSON_FILE)',
    )
    .option("--from <store>", "the store to copy from (default: local)")
    .option("--to <store>", "the store to copy to (default: that of the addresses below)")
    .option("--closure", "copy what the store paths refer to as well, directly or indirectly")
    .option("--dry-run", "print only what would be copied, with the size of each NAR in bytes")
    .addOption(
      new Option(
        "--zstd-level <level>",
        "level of zstd, 1 to 22, for files that are compressed to be sent to a daemon",
      )
        .argParser(parseLevel)
        .default(3),
    )
    .option("--json", "print an object of JSON for each store path")
    .action(
      async (given: string[], options: ServiceOptions & TracingOptions & CopyCommandOptions) => {
        const isGraph = options.from === undefined && options.to === undefined;
        const { NIX_ATTRS_JSON_FILE } = process.env;
        const paths =
          isGraph && given.length === 0 && NIX_ATTRS_JSON_FILE ? [NIX_ATTRS_JSON_FILE] : given;
        if (paths.length === 0) command.error("error: expected a path, found none");
        if (isGraph && (paths.length > 1 || options.closure)) {
          command.error("error: expected --from or --to with store paths, or one reference graph");
        }
        const { copyPaths } = await import("../copy/copy-paths.ts"); // no other command needs it
        const { run } = await import("../run.ts");
        await run((interrupt) => copyPaths(paths, options, interrupt));
      },
    );
  for (const option of progressOptions()) command.addOption(option);
  for (const option of serviceOptions(daemonAddresses())) command.addOption(option);
  return addHelpEnd(command.addOption(storeModeOption()).addOption(tracingOption()), {
    about: STORES,
    examples: [
      [
        "tvix-store copy --to grpc+http://build-farm:8000 --closure ./result",
        "pushes what nix-build made, with all it refers to",
      ],
      [
        "tvix-store copy --from nix+https://cache.nixos.org --to ./store --closure HASH",
        "fetches a store path from a binary cache",
      ],
      [
        "tvix-store copy --from grpc+http://old:8000 --to grpc+http://new:8000 --closure --dry-run HASH",
        "tells what a copy from daemon to daemon would take",
      ],
      [
        'tvix-store copy "$NIX_ATTRS_JSON_FILE"',
        "imports, in a build with __structuredAttrs, the paths of exportReferencesGraph.closure",
      ],
    ],
    statuses: {
      ...STATUSES,
      0: "all store paths were copied, or there",
      1: "something was refused or failed; the store paths that do not refer to it were copied all the same",
    },
  });
}

function parseLevel(text: string): number {
  const level = /^[0-9]{1,2}$/.test(text) ? Number(text) : 0;
  if (level >= 1 && level <= 22) return level;
  throw new InvalidArgumentError(`expected 1 to 22, found ${JSON.stringify(text)}`);
}
