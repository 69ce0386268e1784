import { Command } from "commander";
import type { ShownOptions } from "../mount/shown.ts";
import { addHelpEnd } from "./help-end.ts";
import { addShownOptions } from "./shown-options.ts";

/** `tvix-store virtiofs SOCKET` */
export function virtiofsCommand(): Command {
  const command = new Command("virtiofs")
    .description("Shows store paths as files to virtual machines, by virtiofs")
    .argument("<socket>", "the Unix socket that the virtual machine connects to")
    .action(async (socket: string, options: ShownOptions) => {
      const { serveVirtiofs } = await import("../mount/virtiofs.ts"); // no other command needs it
      const { run } = await import("../run.ts");
      await run((interrupt) => serveVirtiofs(socket, options, interrupt));
      process.exit(); // descriptors of virtual machines do not keep it alive
    });
  addShownOptions(command);
  return addHelpEnd(command, {
    about:
      "Needs Linux. The memory of the virtual machine must be shared, and not in huge pages. With QEMU: -chardev socket,id=c,path=SOCKET -device vhost-user-fs-pci,chardev=c,tag=store -object memory-backend-memfd,id=m,size=1G,share=on -machine memory-backend=m; in the guest: mount -t virtiofs store /mnt.",
    examples: [
      [
        "tvix-store virtiofs --list-root /run/store.socket",
        "shows what the daemon on this machine has",
      ],
    ],
    statuses: { 0: "ended by a signal", 1: "could not listen, or failed" },
  });
}
