import { Command } from "commander";
import type { ServiceOptions } from "../options/addresses.ts";
import type { PathInfoOptions } from "../stored/path-info.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import { addReadOptions } from "./read-help.ts";

/** `tvix-store path-info STOREPATH...` */
export function pathInfoCommand(): Command {
  const command = new Command("path-info")
    .description("Prints what is known about store paths, as `nix path-info` does")
    .argument("[storepath...]", "store paths, or their hash parts")
    .option("--all", "print all store paths of the store, in an order that stays the same")
    .option(
      "-r, --closure",
      "also print the store paths that they refer to, directly or not; each behind those that it refers to",
    )
    .option("-s, --size", "print the length of the NAR in bytes")
    .option("-S, --closure-size", "print the length of the NARs of the closure in bytes")
    .option("--sigs", "print the content address and the signatures")
    .option("--json", "print one object of JSON, by store path; null for one that is not there")
    .action(async (paths: string[], options: ServiceOptions & TracingOptions & PathInfoOptions) => {
      if (paths.length > 0 === (options.all ?? false)) {
        const found = options.all ? "both" : "neither";
        command.error(`error: expected store paths or --all, found ${found}`);
      }
      const { pathInfo } = await import("../stored/path-info.ts");
      const { run } = await import("../run.ts");
      await run((interrupt) => pathInfo(paths, options, interrupt));
    });
  return addReadOptions(command, {
    examples: [
      ["tvix-store path-info -rsS ./result", "prints the sizes of a closure"],
      [
        "tvix-store path-info --json --all | jq 'map_values(.narSize)'",
        "prints the sizes of all store paths",
      ],
      ["tvix-store path-info HASH && echo there", "tells whether a store path is in the store"],
    ],
  });
}
