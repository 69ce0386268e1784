import { CastoreError, limitLanes, parseServiceAddress } from "@tvix/castore";
import { DiskCache, type MountOptions } from "@tvix/fs";
import { absolutePath } from "../arguments.ts";
import type { ServiceOptions } from "../options/addresses.ts";
import { ServerLog } from "../serve/server-log.ts";
import { ServiceManager } from "../serve/service-manager.ts";
import { openServices } from "../services.ts";
import { startTracing } from "../telemetry/tracing.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import type { Interrupt } from "../terminal/interrupt.ts";
import { type LogOptions, levelOfEvent } from "../terminal/notices.ts";

/** Options of the commands that show the store as files. */
export interface ShownOptions extends ServiceOptions, LogOptions, TracingOptions {
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
  /** A folder that keeps contents. Default: none. */
  cacheDir?: string;
  /** Limit of what is in that folder, in MiB. */
  cacheDirSize: number;
}

/** A store that is open to be shown as files. */
interface Shown extends AsyncDisposable {
  readonly services: Awaited<ReturnType<typeof openServices>>;
  readonly logger: ServerLog["logger"];
  readonly manager: ServiceManager;
  readonly options: Omit<MountOptions, "allowOther">;
}

/** How long the kernel may remember that a store path is there, in seconds: it may be deleted. */
const PATH_TTL = 60;

/** Opens the store, the log and what else a command needs that shows the store as files. */
export async function openShown(options: ShownOptions, { signal }: Interrupt): Promise<Shown> {
  await using opened = new AsyncDisposableStack();
  const log = opened.use(await ServerLog.open(options));
  const { logger } = log;
  const manager = opened.use(new ServiceManager((message) => logger.warn(message)));
  opened.use(await startTracing(options, (message) => logger.warn(message)));
  if (options.threads !== undefined) limitLanes(options.threads);
  const services = opened.use(
    await openServices(options, {
      signal,
      create: false,
      onEvent(event) {
        const { kind, store, message } = event;
        logger[levelOfEvent(event)]({ store, kind }, message);
      },
    }),
  );
  const diskCache =
    options.cacheDir === undefined
      ? undefined
      : opened.use(
          await DiskCache.open({
            folder: utf8Path(options.cacheDir, "cache in"),
            maxBytes: options.cacheDirSize * 1024 * 1024,
            onWarning: (message) => logger.warn(message),
          }),
        );
  const owned = opened.move();
  return {
    services,
    logger,
    manager,
    options: {
      listRoot: options.listRoot ?? false,
      showXattr: options.showXattr ?? false,
      pathTtl: PATH_TTL,
      absentTtl: options.absentTtl,
      cacheBytes: options.cacheSize * 1024 * 1024,
      timeoutMs: options.timeout * 1000,
      diskCache,
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
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/**
 * Returns the absolute form of a path.
 *
 * @throws CastoreError `invalid_argument` if it is not UTF-8
 */
export function utf8Path(path: string, action: string): string {
  const absolute = absolutePath(path);
  if (typeof absolute === "string") return absolute;
  throw new CastoreError(
    "invalid_argument",
    `Cannot ${action} ${JSON.stringify(path)}: expected a path in UTF-8, found other bytes`,
  );
}

/** Returns the name of a store in messages: that in the TOML file, or what can be shown of its address. */
function nameOf({ storeComposition }: ServiceOptions, address: string | undefined): string {
  const hasName = storeComposition !== undefined || address === undefined;
  return hasName ? "default" : parseServiceAddress(address).shown;
}
