import { setDefaultHighWaterMark } from "node:stream";
import { CastoreError, MemoryBlobService, MemoryDirectoryService, startLanes } from "@tvix/castore";
import { castoreServices, type ServedService } from "@tvix/castore/rpc";
import {
  CachingNarCalculationService,
  MemoryPathInfoService,
  RenderingNarCalculationService,
} from "@tvix/store";
import { storeServices } from "@tvix/store/rpc";
import type { Logger } from "pino";
import { limitServerHeapGrowth } from "../heap-growth.ts";
import type { ServeOptions } from "../options/serve-options.ts";
import { useStoreMode } from "../options/store-mode.ts";
import type { Listener, ListenerEvents } from "../server/listener.ts";
import { operationsRoutes } from "../server/operations-routes.ts";
import { type Server, startServer } from "../server/server.ts";
import { openServices, type Services } from "../services.ts";
import {
  type Metrics,
  PROMETHEUS_TYPE,
  type ProcessMetrics,
  prometheusText,
} from "../telemetry/metrics.ts";
import { observeProcess } from "../telemetry/process-metrics.ts";
import { ServerMetrics } from "../telemetry/server-metrics.ts";
import { countStoreEvents, observeStores } from "../telemetry/store-metrics.ts";
import { startTracing } from "../telemetry/tracing.ts";
import { levelOfEvent } from "../terminal/notices.ts";
import { Guarding, warnOfOpenAddresses } from "./guarding.ts";
import { openBinaryCache } from "./open-binary-cache.ts";
import { refuseOwnAddress } from "./own-address.ts";
import { Readiness } from "./readiness.ts";

/**
 * How much a stream of Node.js buffers, in bytes: there is one for each call that waits for memory. Whatever is fast reads
 * and writes past these buffers.
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
  /** Where connections come from. */
  readonly listen: (events: ListenerEvents) => Promise<readonly Listener[]>;
  /** Returns the metrics of all processes, for Prometheus. `undefined`: they are not served with the rest. */
  readonly gather: (() => Promise<readonly ProcessMetrics[]>) | undefined;
  /** How many processes share the stores. */
  readonly workers: number;
}

/** A server over open stores. Disposing ends it at once, and closes them. */
export interface OpenServer extends AsyncDisposable {
  readonly server: Server;
}

/** Opens the stores and serves them: a binary cache over HTTP, and gRPC where the protocols are `all`. */
export async function openServer(
  options: ServeOptions,
  protocols: ServedProtocols,
  { logger, signal, metrics, listen, gather, workers }: OpenServerContext,
): Promise<OpenServer> {
  setDefaultHighWaterMark(false, STREAM_BYTES);
  await using stack = new AsyncDisposableStack();
  stack.use(await startTracing(options, (message) => logger.warn(message)));
  stack.use(observeProcess(metrics.meter));
  const countEvent = countStoreEvents(metrics.meter);
  const guarding = stack.use(await Guarding.open(options, logger));
  useStoreMode(options);
  const stores = stack.use(
    await openServices(options, {
      signal,
      readOnly: "tell",
      onEvent(event) {
        const { kind, store, message } = event;
        countEvent(event);
        logger[levelOfEvent(event)]({ store, kind }, message);
      },
    }),
  );
  await refuseOwnAddress(options, stores.compositionFile);
  if (workers > 1) assertShared(stores, options);
  observeStores(metrics.meter, () => stores.statistics());
  const services = {
    ...stores,
    pathInfoService: guarding.storeNames.guard(stores.pathInfoService),
  };
  const serverMetrics = new ServerMetrics(metrics);
  const { requests } = serverMetrics;
  const cache = stack.use(
    await openBinaryCache(options, services, {
      logger,
      metrics: requests,
      uploads: guarding.guard.uploads,
    }),
  );
  const readiness = stack.use(new Readiness(stores, signal, logger));
  const operations = {
    metrics: gather && (async () => prometheusText(await gather())),
    metricsType: PROMETHEUS_TYPE,
    ready: () => readiness.check(),
  };
  signal.throwIfAborted();
  const server = stack.use(
    await startServer({
      listen,
      services: protocols === "all" ? rpcServices(services) : [],
      onOther: operationsRoutes(operations, cache.handle),
      logger,
      metrics: serverMetrics,
      guard: guarding.guard,
      ...(guarding.tls && { tls: guarding.tls }),
      headerTimeoutMs: options.headerTimeout,
      bodyTimeoutMs: options.bodyTimeout,
    }),
  );
  guarding.reloadTls(() => server.reloadTls());
  warnOfOpenAddresses(options, logger, server.openAddresses);
  limitServerHeapGrowth();
  void readiness.check(); // says at the start which stores do not answer
  if (stores.blobService.keepsFrames) startLanes(1); // the first upload would wait a tenth of a second for it
  const opened = stack.move();
  return { server, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

/** @throws CastoreError `invalid_argument` for a store in the memory of one process */
function assertShared(services: Services, { workers, cacheObjectAddr }: ServeOptions): void {
  const { blobService, directoryService, pathInfoService } = services;
  const inMemory = [
    blobService instanceof MemoryBlobService && "blobs",
    directoryService instanceof MemoryDirectoryService && "directories",
    pathInfoService instanceof MemoryPathInfoService && "path infos",
    /^memory:/.test(cacheObjectAddr ?? "memory:") && "files of the cache (--cache-object-addr)",
  ].filter((what) => what !== false);
  if (inMemory.length === 0) return;
  throw new CastoreError(
    "invalid_argument",
    `Cannot run ${workers} workers: expected stores that processes can share, found ${inMemory.join(", ")} in memory; use pack:// and sqlite://, a bucket, or --workers 1`,
  );
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
