import { Command } from "commander";
import type { ServiceOptions } from "../options/addresses.ts";
import type { SignOptions } from "../stored/sign.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import { addReadOptions } from "./read-help.ts";

/** `tvix-store sign --key-file FILE STOREPATH...` */
export function signCommand(): Command {
  const command = new Command("sign")
    .description(
      "Adds a signature to store paths, beside those that they have, and prints the store paths that did not have it",
    )
    .argument("[storepath...]", "store paths, or their hash parts")
    .requiredOption(
      "-k, --key-file <file>",
      "a secret key, as `nix-store --generate-binary-cache-key` writes it",
    )
    .option("--all", "sign all store paths of the store")
    .option("-r, --closure", "also sign the store paths that they refer to, directly or not")
    .action(async (paths: string[], options: ServiceOptions & TracingOptions & SignOptions) => {
      if (paths.length > 0 === (options.all ?? false)) {
        const found = options.all ? "both" : "neither";
        command.error(`error: expected store paths or --all, found ${found}`);
      }
      const { sign } = await import("../stored/sign.ts");
      const { run } = await import("../run.ts");
      await run((interrupt) => sign(paths, options, interrupt));
    });
  return addReadOptions(command, {
    examples: [
      ["tvix-store sign --key-file secret-key --closure ./result", "signs a closure"],
      [
        "tvix-store sign -k secret-key --all | wc -l",
        "signs everything, and counts what was not signed",
      ],
    ],
  });
}
