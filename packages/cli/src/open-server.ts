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
import type { Logger } from "pino";
import type { ServiceOptions } from "./addresses.ts";
import { absolutePath } from "./arguments.ts";
import type { CacheOptions } from "./cache-options.ts";
import { Guarding } from "./guarding.ts";
import { logAnswered } from "./server/http-log.ts";
import { type Server, startServer } from "./server/server.ts";
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

/** Options of a command that serves. */
export interface ServeOptions
  extends ServerOptions,
    ServiceOptions,
    CacheOptions,
    UpstreamCacheOptions,
    TracingOptions {}

/** Which services of gRPC to serve. */
export type ServedProtocols = "all" | "http";

/** A server over open stores. Disposing ends it at once, and closes them. */
export interface OpenServer extends AsyncDisposable {
  readonly server: Server;
}

/**
 * Opens the stores and serves them: a binary cache over HTTP, and gRPC where the protocols are `all`.
 *
 * @param signal stops the opening
 */
export async function openServer(
  options: ServeOptions,
  protocols: ServedProtocols,
  { logger, signal }: { readonly logger: Logger; readonly signal: AbortSignal },
): Promise<OpenServer> {
  setDefaultHighWaterMark(false, STREAM_BYTES);
  await using stack = new AsyncDisposableStack();
  stack.use(await startTracing(options, (message) => logger.warn(message)));
  const guarding = stack.use(await Guarding.open(options, logger));
  const stores = stack.use(
    await openServices(options, {
      signal,
      onEvent({ type, kind, store, message }) {
        logger[type === "corrupt" ? "error" : "warn"]({ store, kind }, message);
      },
    }),
  );
  const services = {
    ...stores,
    pathInfoService: guarding.storeNames.guard(stores.pathInfoService),
  };
  const objects = stack.use(await openObjectStore(options.cacheObjectAddr ?? "memory:///"));
  const tokenNames = new WeakMap<HttpRequest, string>();
  const { signingKeyFile, sign, maxUploadSize, maxUploads, maxUploadsPerClient } = options;
  const bridge = stack.use(
    await createNarBridge({
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
    }),
  );
  signal.throwIfAborted();
  const server = stack.use(
    await startServer({
      addresses: options.listenAddress,
      unixSockets: { unlink: options.unixListenUnlink, mode: options.unixListenChmod },
      services: protocols === "all" ? rpcServices(services) : [],
      onOther(request, response, tokenName) {
        if (tokenName !== undefined) tokenNames.set(request, tokenName);
        bridge.handle(request, response, request.headers.expect !== undefined);
      },
      logger,
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
