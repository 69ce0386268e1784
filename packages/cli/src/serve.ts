import type { Interrupt } from "./interrupt.ts";
import { openServer, type ServedProtocols } from "./open-server.ts";
import type { ServeOptions } from "./serve-options.ts";
import { isStderrTheConnection } from "./server/listen-stdio.ts";
import { ServerLog } from "./server-log.ts";
import { ServiceManager } from "./service-manager.ts";
import { serveUntilStopped, unlessStopped } from "./serving.ts";
import { Metrics } from "./telemetry/metrics.ts";

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
  using manager = new ServiceManager((message) => logger.warn(message));
  await using metrics = await Metrics.start(options, (message) => logger.warn(message));
  const opening = openServer(options, protocols, { logger, signal: interrupt.signal, metrics });
  await using opened = await unlessStopped(opening, interrupt, options.shutdownTimeout);
  if (opened === undefined) {
    logger.info("stopped before it listened");
    return;
  }
  const { server } = opened;
  logger.info({ addresses: server.addresses }, "listening");
  manager.ready(`listening on ${server.addresses.join(", ")}`);
  await serveUntilStopped(server, {
    ...{ interrupt, manager, logger },
    shutdownTimeoutMs: options.shutdownTimeout,
  });
}
