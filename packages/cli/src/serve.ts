import { once } from "node:events";
import { setDefaultHighWaterMark } from "node:stream";
import { openObjectStore } from "@tvix/castore";
import { castoreServices, type ServedService } from "@tvix/castore/rpc";
import { createNarBridge, type HttpRequest } from "@tvix/nar-bridge";
import {
  CachingNarCalculationService,
  RenderingNarCalculationService,
  readSigningKey,
} from "@tvix/store";
import { storeServices } from "@tvix/store/rpc";
import { pino } from "pino";
import type { ServiceOptions } from "./addresses.ts";
import { absolutePath } from "./arguments.ts";
import type { CacheOptions } from "./cache-options.ts";
import { Guarding } from "./guarding.ts";
import type { Interrupt } from "./interrupt.ts";
import { LogWriter } from "./log-writer.ts";
import { logAnswered } from "./server/http-log.ts";
import { startServer } from "./server/server.ts";
import type { ServerOptions } from "./server-options.ts";
import { openServices, type Services } from "./services.ts";
import { startTracing } from "./tracing.ts";
import type { TracingOptions } from "./tracing-option.ts";
import type { UpstreamCacheOptions } from "./upstream-options.ts";
import { readUpstreams } from "./upstreams.ts";

/**
 * How many bytes a stream of Node.js buffers, in bytes: one for each call that waits for memory. Whatever is fast reads and
 * writes past these buffers.
 */
const STREAM_BYTES = 8 * 1024;

/** Options of {@link serveDaemon} and {@link serveNarBridge}. */
export interface ServeOptions
  extends ServerOptions,
    ServiceOptions,
    CacheOptions,
    UpstreamCacheOptions,
    TracingOptions {}

/** Serves gRPC, and a binary cache over HTTP, until it is interrupted; then waits for the calls in flight. */
export async function serveDaemon(options: ServeOptions, interrupt: Interrupt): Promise<void> {
  const rpcServices = (services: Services) => [
    ...castoreServices(services),
    ...storeServices({
      pathInfoService: services.pathInfoService,
      narCalculationService: new CachingNarCalculationService({
        inner: new RenderingNarCalculationService(services),
      }),
    }),
  ];
  await serve(options, interrupt, rpcServices);
}

/** Serves a binary cache over HTTP until it is interrupted, then waits for the requests in flight. */
export async function serveNarBridge(options: ServeOptions, interrupt: Interrupt): Promise<void> {
  await serve(options, interrupt, () => []);
}

async function serve(
  options: ServeOptions,
  interrupt: Interrupt,
  rpcServices: (services: Services) => ServedService[],
): Promise<void> {
  await using log = new LogWriter((lost) =>
    logger.warn({ lost }, "log lines dropped: stderr took no more"),
  );
  const logger = pino({ level: options.logLevel }, log);
  setDefaultHighWaterMark(false, STREAM_BYTES);
  await using _tracing = await startTracing(options, (message) => logger.warn(message));
  using guarding = await Guarding.open(options, logger);
  await using stores = await openServices(options, {
    signal: interrupt.signal,
    onEvent({ type, kind, store, message }) {
      logger[type === "corrupt" ? "error" : "warn"]({ store, kind }, message);
    },
  });
  const services = {
    ...stores,
    pathInfoService: guarding.storeNames.guard(stores.pathInfoService),
  };
  await using objects = await openObjectStore(options.cacheObjectAddr ?? "memory:///");
  const tokenNames = new WeakMap<HttpRequest, string>();
  const { signingKeyFile, sign, maxUploadSize, maxUploads, maxUploadsPerClient } = options;
  await using bridge = await createNarBridge({
    ...services,
    objects,
    priority: options.cachePriority,
    announce: options.cacheCompression,
    signing:
      signingKeyFile === undefined
        ? undefined
        : { key: await readSigningKey(absolutePath(signingKeyFile)), when: sign },
    maxUploadBytes: maxUploadSize,
    uploads: { all: maxUploads, perClient: maxUploadsPerClient },
    upstreams: {
      caches: await readUpstreams(options),
      absentTtlMs: options.upstreamAbsentTtl * 1000,
      onTrouble: (message) => logger.warn(message),
    },
    onSweepError: (err) => logger.warn({ err }, "cannot delete abandoned uploads"),
    onAnswered: (answered, request) =>
      logAnswered(logger, answered, request, tokenNames.get(request)),
  });
  await using server = await startServer({
    addresses: options.listenAddress,
    services: rpcServices(services),
    onOther(request, response, tokenName) {
      if (tokenName !== undefined) tokenNames.set(request, tokenName);
      bridge.handle(request, response, request.headers.expect !== undefined);
    },
    logger,
    guard: guarding.guard,
    ...(guarding.tls && { tls: guarding.tls }),
    headerTimeoutMs: options.headerTimeout,
    bodyTimeoutMs: options.bodyTimeout,
  });
  guarding.reloadTls(() => server.reloadTls());
  guarding.warnOfOpenAddresses(options.listenAddress);
  logger.info({ addresses: server.addresses }, "listening");

  if (!interrupt.signal.aborted) await once(interrupt.signal, "abort");
  logger.info("shutting down: waiting for calls in flight, a second signal ends them");
  interrupt.urgent.addEventListener("abort", () => void server.terminate());
  await server.shutdown();
}
