import { rmSync } from "node:fs";
import { serveGuests } from "@tvix/fs";
import { assertReplaceable } from "../server/listen-unix.ts";
import type { Interrupt } from "../terminal/interrupt.ts";
import { openShown, type ShownOptions, utf8Path } from "./shown.ts";

/** Serves the store to virtual machines on a socket, until it is interrupted. */
export async function serveVirtiofs(
  socket: string,
  options: ShownOptions,
  interrupt: Interrupt,
): Promise<void> {
  const path = utf8Path(socket, "listen on");
  await using shown = await openShown(options, interrupt);
  const { logger, manager } = shown;
  await assertReplaceable(path);
  rmSync(path, { force: true }); // a socket that was left behind
  await using _served = await serveGuests(path, shown.services, {
    ...shown.options,
    onGuest: (isConnected) =>
      logger.info(isConnected ? "a virtual machine has connected" : "a virtual machine has left"),
  });
  logger.info({ socket: path }, "listening");
  manager.ready(`listening on ${path}`);
  if (!interrupt.signal.aborted) {
    await new Promise((resolve) => interrupt.signal.addEventListener("abort", resolve));
  }
  await manager.stopping("interrupted");
}
