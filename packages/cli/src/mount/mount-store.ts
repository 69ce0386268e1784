import { mount } from "@tvix/fs";
import type { Interrupt } from "../terminal/interrupt.ts";
import { daemonize, isInBackground, tellReady } from "./daemonize.ts";
import { openShown, type ShownOptions, utf8Path } from "./shown.ts";

/** Options of {@link mountStore}. */
export interface MountCommandOptions extends ShownOptions {
  daemonize?: boolean;
  allowOther?: boolean;
}

/**
 * Mounts the store on a folder, and serves it until it is unmounted or interrupted: in this process, or in another one in
 * the background.
 */
export async function mountStore(
  folder: string,
  options: MountCommandOptions,
  interrupt: Interrupt,
): Promise<void> {
  if (options.daemonize && !isInBackground()) await daemonize(interrupt);
  else await serveMount(folder, options, interrupt);
}

async function serveMount(
  folder: string,
  options: MountCommandOptions,
  interrupt: Interrupt,
): Promise<void> {
  const path = utf8Path(folder, "mount on");
  await using shown = await openShown(options, interrupt);
  const { logger, manager } = shown;
  await using mounted = await mount(path, shown.services, {
    ...shown.options,
    allowOther: options.allowOther ?? false,
  });
  logger.info({ folder: path }, "mounted");
  manager.ready(`mounted on ${path}`);
  if (isInBackground()) tellReady();
  interrupt.signal.addEventListener("abort", async () => {
    try {
      if (await mounted.unmount()) return;
      logger.info("unmounted, still in use: waiting for programs, a second signal ends it");
    } catch (error) {
      logger.error((error as Error).message);
    }
  });
  interrupt.urgent.addEventListener("abort", () => void mounted[Symbol.asyncDispose]());
  await mounted.ended;
  await manager.stopping("unmounted");
  logger.info("unmounted");
}
