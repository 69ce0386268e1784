import { Command } from "commander";
import type { MountCommandOptions } from "../mount/mount-store.ts";
import { addHelpEnd } from "./help-end.ts";
import { addShownOptions } from "./shown-options.ts";

/** `tvix-store mount DIR` */
export function mountCommand(): Command {
  const command = new Command("mount")
    .description("Shows store paths as files below a folder, which are fetched as they are read")
    .argument("<dir>", "the folder to mount on")
    .option("--daemonize", "go on in the background, and return once it is mounted")
    .option("--allow-other", "let other users look into it")
    .action(async (folder: string, options: MountCommandOptions) => {
      const { mountStore } = await import("../mount/mount-store.ts"); // no other command needs it
      const { run } = await import("../run.ts");
      await run((interrupt) => mountStore(folder, options, interrupt));
      process.exit(); // unread log lines do not keep it alive
    });
  addShownOptions(command);
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
