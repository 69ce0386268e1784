import { Command } from "commander";
import type { MountCommandOptions } from "../mount/mount-store.ts";
import { daemonAddresses, serviceOptions } from "../options/addresses.ts";
import { wholeNumber } from "../options/whole-number.ts";
import { tracingOption } from "../telemetry/tracing-option.ts";
import { addHelpEnd } from "./help-end.ts";
import { useSmallMalloc } from "./small-malloc.ts";

const wholeSeconds = wholeNumber(/^[0-9]{1,6}$/, "whole seconds");

/** `tvix-store mount DIR` */
export function mountCommand(): Command {
  const command = new Command("mount")
    .description("Shows store paths as files below a folder, which are fetched as they are read")
    .argument("<dir>", "the folder to mount on")
    .option("--daemonize", "go on in the background, and return once it is mounted")
    .option("--allow-other", "let other users look into it")
    .option("--list-root", "list all store paths in the folder (default: look-ups by name only)")
    .option("--show-xattr", "show digests as extended attributes")
    .option(
      "--threads <number>",
      "threads that read and verify contents (default: one less than there are cores)",
      wholeNumber(/^[1-9][0-9]{0,2}$/, "1 to 999"),
    )
    .option(
      "--timeout <seconds>",
      "how long a store that does not answer is waited for; 0 is without end. Then, programs get ETIMEDOUT",
      wholeSeconds,
      60,
    )
    .option(
      "--absent-ttl <seconds>",
      "how long it is remembered that a store path is absent",
      wholeSeconds,
      1,
    )
    .option(
      "--cache-size <MiB>",
      "memory for contents that were read ahead",
      wholeNumber(/^[1-9][0-9]{0,5}$/, "1 or more MiB"),
      16,
    )
    .action(async (folder: string, options: MountCommandOptions) => {
      useSmallMalloc();
      const { mountStore } = await import("../mount/mount-store.ts"); // no other command needs it
      const { run } = await import("../run.ts");
      await run((interrupt) => mountStore(folder, options, interrupt));
      process.exit(); // unread log lines do not keep it alive
    });
  for (const option of serviceOptions(daemonAddresses())) command.addOption(option);
  command.addOption(tracingOption());
  return addHelpEnd(command, {
    about:
      "Needs Linux, and root or fusermount3. The folder is free again once the process ends, or after umount.",
    examples: [
      ["tvix-store mount /mnt/store", "shows what the daemon on this machine has, by name"],
      ["tvix-store mount --daemonize /mnt/store", "the same in the background"],
      ["tvix-store mount --list-root --allow-other /mnt/store", "lists it, also for other users"],
    ],
    statuses: {
      0: "unmounted, by a signal or by umount",
      1: "could not mount, or failed",
    },
  });
}
