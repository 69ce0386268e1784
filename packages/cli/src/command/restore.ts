import { Command } from "commander";
import type { ServiceOptions } from "../options/addresses.ts";
import { type ProgressOptions, progressOptions } from "../options/progress-option.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import { STATUSES } from "./help-end.ts";
import { addReadOptions } from "./read-help.ts";

/** `tvix-store restore OBJECT DIR` */
export function restoreCommand(): Command {
  const command = new Command("restore")
    .description(
      "Restores something in a store to the local file system, with the permissions and times of a Nix store: " +
        "files 0444 or 0555, folders 0555, modified at second 1",
    )
    .argument("<object>", "a store path, or a folder, file or symlink below one")
    .argument("<dir>", "the path that it gets; must not exist. It appears when it is complete")
    .action(
      async (
        object: string,
        target: string,
        options: ServiceOptions & TracingOptions & ProgressOptions,
      ) => {
        const { restore } = await import("../stored/restore.ts");
        const { run } = await import("../run.ts");
        await run((interrupt) => restore(object, target, options, interrupt));
      },
    );
  for (const option of progressOptions()) command.addOption(option);
  return addReadOptions(command, {
    examples: [
      ["tvix-store restore /nix/store/HASH-hello-2.12 ./hello", "restores a store path"],
      ["tvix-store restore HASH/share/doc ./doc", "restores a folder of a store path"],
      ["chmod -R u+w ./hello", "makes what was restored writable"],
    ],
    statuses: { ...STATUSES, 1: "something was refused or failed; there is nothing then" },
  });
}
