import { CastoreError, limitLanes, parseServiceAddress } from "@tvix/castore";
import { mount } from "@tvix/fs";
import { absolutePath } from "../arguments.ts";
import type { ServiceOptions } from "../options/addresses.ts";
import { ServerLog } from "../serve/server-log.ts";
import { ServiceManager } from "../serve/service-manager.ts";
import { openServices } from "../services.ts";
import { startTracing } from "../telemetry/tracing.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import type { Interrupt } from "../terminal/interrupt.ts";
import { type LogOptions, levelOfEvent } from "../terminal/notices.ts";
import { daemonize, isInBackground, tellReady } from "./daemonize.ts";

/** Options of {@link mountStore}. */
export interface MountCommandOptions extends ServiceOptions, LogOptions, TracingOptions {
  daemonize?: boolean;
  allowOther?: boolean;
  listRoot?: boolean;
  showXattr?: boolean;
  /** How many threads read and verify contents. */
  threads?: number;
  /** Time limit of a fetch in seconds; 0 for none. */
  timeout: number;
  /** How long it is remembered that a store path is absent, in seconds. */
  absentTtl: number;
  /** Memory for contents in MiB. */
  cacheSize: number;
}

/** How long the kernel may remember that a store path is there, in seconds: it may be deleted. */
const PATH_TTL = 60;

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
  await using log = await ServerLog.open(options);
  const { logger } = log;
  using manager = new ServiceManager((message) => logger.warn(message));
  await using _tracing = await startTracing(options, (message) => logger.warn(message));
  if (options.threads !== undefined) limitLanes(options.threads);
  await using services = await openServices(options, {
    signal: interrupt.signal,
    onEvent(event) {
      const { kind, store, message } = event;
      logger[levelOfEvent(event)]({ store, kind }, message);
    },
  });
  const path = absolutePath(folder);
  if (typeof path !== "string") {
    throw new CastoreError(
      "invalid_argument",
      `Cannot mount on ${JSON.stringify(folder)}: expected a path in UTF-8, found other bytes`,
    );
  }
  await using mounted = await mount(path, services, {
    allowOther: options.allowOther ?? false,
    listRoot: options.listRoot ?? false,
    showXattr: options.showXattr ?? false,
    pathTtl: PATH_TTL,
    absentTtl: options.absentTtl,
    cacheBytes: options.cacheSize * 1024 * 1024,
    timeoutMs: options.timeout * 1000,
    storeNames: {
      blobs: nameOf(options, options.blobServiceAddr),
      directories: nameOf(options, options.directoryServiceAddr),
    },
    onError: ({ message, code, store }, errno) => logger.error({ store, code, errno }, message),
    onOutage: (error) =>
      error === undefined
        ? logger.info("the store is back")
        : logger.warn({ store: error.store }, `${error.message}; waiting for it`),
    onTrouble: (message) => logger.error(message),
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

/** Returns the name of a store in messages: that in the TOML file, or what can be shown of its address. */
function nameOf({ storeComposition }: ServiceOptions, address: string | undefined): string {
  const hasName = storeComposition !== undefined || address === undefined;
  return hasName ? "default" : parseServiceAddress(address).shown;
}
