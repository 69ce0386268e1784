import { Command } from "commander";
import type { ServiceOptions } from "../options/addresses.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import { addReadOptions } from "./read-help.ts";

/** `tvix-store cat OBJECT...` */
export function catCommand(): Command {
  const command = new Command("cat")
    .description("Writes the contents of files in a store on stdout, one after the other")
    .argument("<object...>", "a file in the store")
    .action(async (objects: string[], options: ServiceOptions & TracingOptions) => {
      const { cat } = await import("../stored/cat.ts");
      const { run } = await import("../run.ts");
      await run((interrupt) => cat(objects, options, interrupt));
    });
  return addReadOptions(command, {
    examples: [
      [
        "tvix-store cat /nix/store/HASH-hello-2.12/share/doc/README",
        "prints a file of a store path",
      ],
      ["tvix-store cat b3:ZDezrDhGUTP/tjt1JzqNtUjFWEZdedsD/TWcbNW9nYU=", "prints a blob"],
      ["tvix-store cat ./result/bin/hello | sha256sum", "hashes a file of what nix-build made"],
    ],
  });
}
