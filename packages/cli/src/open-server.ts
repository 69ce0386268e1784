import { setDefaultHighWaterMark } from "node:stream";
import { castoreServices, type ServedService } from "@tvix/castore/rpc";
import { CachingNarCalculationService, RenderingNarCalculationService } from "@tvix/store";
import { storeServices } from "@tvix/store/rpc";
import type { Logger } from "pino";
import { Guarding } from "./guarding.ts";
import { openBinaryCache } from "./open-binary-cache.ts";
import { Readiness } from "./readiness.ts";
import type { ServeOptions } from "./serve-options.ts";
import type { HttpResponse } from "./server/one-port.ts";
import { operationsRoutes } from "./server/operations-routes.ts";
import { type Server, startServer } from "./server/server.ts";
import { openServices, type Services } from "./services.ts";
import { type Metrics, PROMETHEUS_TYPE, prometheusText } from "./telemetry/metrics.ts";
import { observeProcess } from "./telemetry/process-metrics.ts";
import { ServerMetrics } from "./telemetry/server-metrics.ts";
import { countStoreEvents, observeStores } from "./telemetry/store-metrics.ts";
import { startTracing } from "./telemetry/tracing.ts";

/**
 * How many bytes a stream of Node.js buffers, in bytes: one for each call that waits for memory. Whatever is fast reads and
 * writes past these buffers.
 */
const STREAM_BYTES = 8 * 1024;

/** Which protocols to serve: `http` is the binary cache alone. */
export type ServedProtocols = "all" | "http";

/** What a server is opened with. */
export interface OpenServerContext {
  readonly logger: Logger;
  /** Stops the opening, and says that the server is about to stop. */
  readonly signal: AbortSignal;
  readonly metrics: Metrics;
}

/** A server over open stores. Disposing ends it at once, and closes them. */
export interface OpenServer extends AsyncDisposable {
  readonly server: Server;
}

/** Opens the stores and serves them: a binary cache over HTTP, and gRPC where the protocols are `all`. */
export async function openServer(
  options: ServeOptions,
  protocols: ServedProtocols,
  { logger, signal, metrics }: OpenServerContext,
): Promise<OpenServer> {
  setDefaultHighWaterMark(false, STREAM_BYTES);
  await using stack = new AsyncDisposableStack();
  stack.use(await startTracing(options, (message) => logger.warn(message)));
  stack.use(observeProcess(metrics.meter));
  const countEvent = countStoreEvents(metrics.meter);
  const guarding = stack.use(await Guarding.open(options, logger));
  const stores = stack.use(
    await openServices(options, {
      signal,
      onEvent(event) {
        const { type, kind, store, message } = event;
        countEvent(event);
        logger[type === "corrupt" ? "error" : "warn"]({ store, kind }, message);
      },
    }),
  );
  observeStores(metrics.meter, () => stores.statistics());
  const services = {
    ...stores,
    pathInfoService: guarding.storeNames.guard(stores.pathInfoService),
  };
  const serverMetrics = new ServerMetrics(metrics.meter);
  const { requests } = serverMetrics;
  const cache = stack.use(await openBinaryCache(options, services, { logger, metrics: requests }));
  const readiness = new Readiness(stores, signal);
  const operations = {
    metrics: async () => prometheusText([await metrics.collect()]),
    metricsType: PROMETHEUS_TYPE,
    ready: () => readiness.check(),
  };
  signal.throwIfAborted();
  if (options.metricsAddress.length > 0) {
    const server = await startServer({
      addresses: options.metricsAddress,
      services: [],
      onOther: operationsRoutes(operations, notFound),
      logger,
    });
    stack.use(server);
    logger.info({ addresses: server.addresses }, "serving metrics");
  }
  const isHere = options.metricsAddress.length === 0;
  const server = stack.use(
    await startServer({
      addresses: options.listenAddress,
      unixSockets: { unlink: options.unixListenUnlink, mode: options.unixListenChmod },
      services: protocols === "all" ? rpcServices(services) : [],
      onOther: operationsRoutes(
        { ...operations, metrics: isHere ? operations.metrics : undefined },
        cache.handle,
      ),
      logger,
      metrics: serverMetrics,
      guard: guarding.guard,
      ...(guarding.tls && { tls: guarding.tls }),
      headerTimeoutMs: options.headerTimeout,
      bodyTimeoutMs: options.bodyTimeout,
    }),
  );
  guarding.reloadTls(() => server.reloadTls());
  guarding.warnOfOpenAddresses(server.openAddresses);
  const opened = stack.move();
  return { server, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

function notFound(_: unknown, response: HttpResponse): void {
  response.statusCode = 404;
  response.end();
}

function rpcServices(services: Services): ServedService[] {
  return [
    ...castoreServices(services),
    ...storeServices({
      pathInfoService: services.pathInfoService,
      narCalculationService: new CachingNarCalculationService({
        inner: new RenderingNarCalculationService(services),
      }),
    }),
  ];
}
