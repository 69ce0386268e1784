import { Command } from "commander";
import type { ServiceOptions } from "../options/addresses.ts";
import { type ProgressOptions, progressOptions } from "../options/progress-option.ts";
import type { UsageOptions } from "../stored/du.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import { addReadOptions } from "./read-help.ts";

/** `tvix-store du STOREPATH...` */
export function duCommand(): Command {
  const command = new Command("du")
    .description("Prints how much of the store contents take, and how much of that is shared")
    .argument("<storepath...>", "store paths, or their hash parts")
    .option("-r, --closure", "count what each store path refers to as well, directly or not")
    .option("--json", "print JSON, with numbers of bytes")
    .addHelpText(
      "after",
      `
LOGICAL       length of the NAR
DEDUPLICATED  length of the chunks, each counted once
COMPRESSED    what these chunks are stored in; "-" if the store does not tell, as a store in memory, or a daemon of
              anything but packs. A bucket takes a request for each chunk
SHARED        length of those chunks that others of the named store paths have too`,
    )
    .action(
      async (
        paths: string[],
        options: ServiceOptions & TracingOptions & ProgressOptions & UsageOptions,
      ) => {
        const { du } = await import("../stored/du.ts");
        const { run } = await import("../run.ts");
        await run((interrupt) => du(paths, options, interrupt));
      },
    );
  for (const option of progressOptions()) command.addOption(option);
  return addReadOptions(command, {
    examples: [
      ["tvix-store du --closure HASH", "prints the sizes of a closure"],
      ["tvix-store du HASH1 HASH2", "prints what two store paths share"],
    ],
  });
}
