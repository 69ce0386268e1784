import { CastoreError, shareLanes } from "@tvix/castore";
import type { Logger } from "pino";
import type { ServeOptions } from "../options/serve-options.ts";
import { listen } from "../server/listen.ts";
import { isStderrTheConnection } from "../server/listen-stdio.ts";
import type { Listener, ListenerEvents } from "../server/listener.ts";
import { Metrics } from "../telemetry/metrics.ts";
import type { Interrupt } from "../terminal/interrupt.ts";
import { Primary } from "../workers/primary.ts";
import { isWorker, WorkerProcess } from "../workers/worker-process.ts";
import { banner } from "./banner.ts";
import { warnOfOpenAddresses } from "./guarding.ts";
import { startMetricsServer } from "./metrics-server.ts";
import { openServer, type ServedProtocols } from "./open-server.ts";
import { ServerLog } from "./server-log.ts";
import { ServiceManager } from "./service-manager.ts";
import { serveUntilStopped, unlessStopped } from "./serving.ts";

/** Serves gRPC, and a binary cache over HTTP, until it is interrupted; then waits for the calls in flight. */
export async function serveDaemon(options: ServeOptions, interrupt: Interrupt): Promise<void> {
  await serve(options, interrupt, "all");
}

/** Serves a binary cache over HTTP until it is interrupted, then waits for the requests in flight. */
export async function serveNarBridge(options: ServeOptions, interrupt: Interrupt): Promise<void> {
  await serve(options, interrupt, "http");
}

async function serve(
  options: ServeOptions,
  interrupt: Interrupt,
  protocols: ServedProtocols,
): Promise<void> {
  const logLevel = isStderrTheConnection() ? "silent" : options.logLevel;
  await using log = await ServerLog.open({ ...options, logLevel });
  const { logger } = log;
  const announce = (addresses: readonly string[], workers?: number) => {
    if (log.isPretty && logger.isLevelEnabled("info")) {
      log.say(banner(options, addresses, protocols === "all"));
    } else {
      logger.info({ addresses, workers }, "listening");
    }
  };
  shareLanes(); // small commits wait for nobody; for long ones, two cores gain nothing by a second thread
  const context = { options, interrupt, protocols, logger, announce };
  if (isWorker()) await serveAsWorker(context);
  else if (options.workers > 1) await serveByWorkers(context);
  else await serveAlone(context);
}

interface ServeContext {
  readonly options: ServeOptions;
  readonly interrupt: Interrupt;
  readonly protocols: ServedProtocols;
  readonly logger: Logger;
  /** Says where it listens. */
  readonly announce: (addresses: readonly string[], workers?: number) => void;
}

/** Serves in this process. */
async function serveAlone({
  options,
  interrupt,
  protocols,
  logger,
  announce,
}: ServeContext): Promise<void> {
  const warn = (message: string) => logger.warn(message);
  using manager = new ServiceManager(warn);
  await using metrics = await Metrics.start(options, warn);
  const gather = async () => [await metrics.collect()];
  const hasOwnAddress = options.metricsAddress.length > 0;
  const opening = openServer(options, protocols, {
    ...{ logger, metrics, signal: interrupt.signal, workers: 1 },
    listen: (events) => listenAsTold(options, events),
    gather: hasOwnAddress ? undefined : gather,
  });
  await using opened = await unlessStopped(opening, interrupt, options.shutdownTimeout);
  if (opened === undefined) {
    logger.info("stopped before it listened");
    return;
  }
  const { server } = opened;
  await using _metrics = hasOwnAddress
    ? await startMetricsServer(options.metricsAddress, gather, logger)
    : undefined;
  announce(server.addresses);
  manager.ready(`listening on ${server.addresses.join(", ")}`);
  const shutdownTimeoutMs = options.shutdownTimeout;
  await serveUntilStopped(server, { interrupt, manager, logger, shutdownTimeoutMs });
}

/** Accepts connections, and has workers serve them. */
async function serveByWorkers({
  options,
  interrupt,
  logger,
  announce,
}: ServeContext): Promise<void> {
  using manager = new ServiceManager((message) => logger.warn(message));
  const { workers: count } = options;
  const starting = Primary.start({ count, logger }, interrupt.signal);
  await using primary = await unlessStopped(starting, interrupt, options.shutdownTimeout);
  if (primary === undefined) {
    logger.info("stopped before it listened");
    return;
  }
  const listeners = await listenAsTold(options, {
    onConnection: primary.hand,
    onError: (err) => logger.warn({ err }, "cannot accept a connection"),
    handsOver: true,
  });
  primary.use(listeners);
  const open = listeners.filter(({ isOpen }) => isOpen).map(({ address }) => address);
  warnOfOpenAddresses(options, logger, open);
  if (options.authFile !== undefined || options.tlsCert !== undefined) {
    process.on("SIGHUP", () => primary.reload());
  }
  const { metricsAddress, shutdownTimeout: shutdownTimeoutMs } = options;
  await using _metrics =
    metricsAddress.length > 0
      ? await startMetricsServer(metricsAddress, () => primary.collect(), logger)
      : undefined;
  const addresses = listeners.map(({ address }) => address);
  announce(addresses, count);
  manager.ready(`${count} workers, listening on ${addresses.join(", ")}`);
  await serveUntilStopped(primary, { interrupt, manager, logger, shutdownTimeoutMs });
}

/** Serves the connections that another process accepts, until that says so. */
async function serveAsWorker({
  options,
  interrupt,
  protocols,
  logger,
}: ServeContext): Promise<void> {
  const warn = (message: string) => logger.warn(message);
  using manager = new ServiceManager(warn, {});
  await using metrics = await Metrics.start(options, warn);
  const worker = new WorkerProcess(() => metrics.collect());
  const either = {
    signal: AbortSignal.any([interrupt.signal, worker.signal]),
    urgent: AbortSignal.any([interrupt.urgent, worker.urgent]),
  };
  const opening = openServer(options, protocols, {
    ...{ logger, metrics, signal: either.signal, workers: options.workers, listen: worker.listen },
    gather: options.metricsAddress.length > 0 ? undefined : () => worker.gather(),
  });
  await using opened = await unlessStopped(opening, either, options.shutdownTimeout);
  if (opened === undefined) return;
  worker.ready();
  await serveUntilStopped(opened.server, {
    ...{ interrupt: either, manager, logger },
    shutdownTimeoutMs: options.shutdownTimeout,
  });
}

/** Listens on the addresses that the options name. */
async function listenAsTold(
  { listenAddress, unixListenUnlink, unixListenChmod, workers }: ServeOptions,
  events: ListenerEvents,
): Promise<readonly Listener[]> {
  const listeners = await listen(listenAddress, events, {
    unlink: unixListenUnlink,
    mode: unixListenChmod,
  });
  if (workers === 1 || listeners.every(({ exhausted }) => exhausted === undefined))
    return listeners;
  const message = "Cannot serve the connection on stdin by workers: expected --workers 1";
  throw new CastoreError("invalid_argument", message);
}
