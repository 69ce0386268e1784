import { Command } from "commander";
import type { ServiceOptions } from "../options/addresses.ts";
import type { ListOptions } from "../stored/ls.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import { addReadOptions } from "./read-help.ts";

/** `tvix-store ls OBJECT...` */
export function lsCommand(): Command {
  const command = new Command("ls")
    .description("Lists folders in a store, as `nix store ls` does")
    .argument("<object...>", "a folder, a file or a symlink in the store")
    .option(
      "-l, --long",
      "also print the type, the execute bit, the size and where symlinks point to",
    )
    .option("-R, --recursive", "also list what is in the folders below")
    .option("-d, --directory", "list a folder itself, not what is in it")
    .option("-0, --null", "end each line with a NUL byte, as names may contain newlines")
    .option(
      "--json",
      "print JSON, one document a line for each object; bytes of names that are not UTF-8 become lone surrogates " +
        "U+DC80 to U+DCFF (surrogateescape)",
    )
    .action(async (objects: string[], options: ServiceOptions & TracingOptions & ListOptions) => {
      const wrong = options.json && (options.long || options.null);
      if (wrong) command.error("error: expected --json without --long and --null, found both");
      const { ls } = await import("../stored/ls.ts");
      const { run } = await import("../run.ts");
      await run((interrupt) => ls(objects, options, interrupt));
    });
  return addReadOptions(command, {
    examples: [
      ["tvix-store ls -lR /nix/store/HASH-hello-2.12", "lists everything in a store path"],
      ["tvix-store ls ./result/bin", "lists a folder of what nix-build made"],
      ["tvix-store ls --json -R b3:DIGEST | jq .entries", "lists a directory for programs"],
    ],
  });
}
