import { Command } from "commander";
import type { ServiceOptions } from "../options/addresses.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import { STATUSES } from "./help-end.ts";
import { addReadOptions } from "./read-help.ts";

/** `tvix-store nar OBJECT` */
export function narCommand(): Command {
  const command = new Command("nar")
    .description("Writes the NAR of something in a store, as `nix-store --dump` does")
    .argument("<object>", "a store path, or a folder, file or symlink below one")
    .option(
      "-o, --output <file>",
      'write to a file, which appears when it is complete; "-" is stdout',
      "-",
    )
    .action(
      async (object: string, options: ServiceOptions & TracingOptions & { output: string }) => {
        if (options.output === "-" && process.stdout.isTTY) {
          command.error(
            "error: expected a file or a pipe for the NAR, found a terminal; pass --output FILE",
          );
        }
        const { dumpNar } = await import("../stored/dump-nar.ts");
        const { run } = await import("../run.ts");
        await run((interrupt) => dumpNar(object, options, interrupt));
      },
    );
  return addReadOptions(command, {
    examples: [
      [
        "tvix-store nar /nix/store/HASH-hello-2.12 | nix-store --restore hello",
        "unpacks a store path by Nix",
      ],
      ["tvix-store nar -o hello.nar HASH", "writes the NAR of a store path to a file"],
    ],
    statuses: {
      ...STATUSES,
      1: "something was refused or failed, or the NAR is not the registered one",
    },
  });
}
