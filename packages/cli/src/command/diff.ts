import { Command } from "commander";
import type { ServiceOptions } from "../options/addresses.ts";
import type { DiffOptions } from "../stored/diff.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import { STATUSES } from "./help-end.ts";
import { addReadOptions } from "./read-help.ts";

/** `tvix-store diff A B` */
export function diffCommand(): Command {
  const command = new Command("diff")
    .description(
      "Compares two trees of a store. Prints a line a difference: + added, - removed, ~ changed; folders end with a slash",
    )
    .argument("<a>", "a store path, or a folder, file or symlink below one")
    .argument("<b>", "what to compare it with")
    .option(
      "--json",
      "print an array of JSON; bytes of names that are not UTF-8 become lone surrogates U+DC80 to U+DCFF (surrogateescape)",
    )
    .action(
      async (a: string, b: string, options: ServiceOptions & TracingOptions & DiffOptions) => {
        const { diff } = await import("../stored/diff.ts");
        const { run } = await import("../run.ts");
        let isDifferent = false;
        await run(async (interrupt) => {
          isDifferent = await diff(a, b, options, interrupt);
        });
        if (process.exitCode === 1)
          process.exitCode = 2; // a failure is no difference
        else if (isDifferent) process.exitCode ??= 1;
      },
    );
  return addReadOptions(command, {
    examples: [
      [
        "tvix-store diff /nix/store/HASH-hello-2.11 /nix/store/HASH-hello-2.12",
        "compares two store paths",
      ],
      [
        "tvix-store diff HASH/lib b3:DIGEST && echo equal",
        "tells whether a folder is that directory",
      ],
    ],
    statuses: { ...STATUSES, 0: "equal", 1: "different", 2: "something was refused or failed" },
  });
}
