import {
  CastoreError,
  hasCode,
  type ObjectStore,
  openObjectStore,
  whyObjectsReadOnly,
} from "@tvix/castore";
import {
  createNarBridge,
  HttpError,
  type HttpRequest,
  type UploadSlotOptions,
} from "@tvix/nar-bridge";
import { readSigningKey } from "@tvix/store";
import type { Logger } from "pino";
import { absolutePath } from "../arguments.ts";
import type { ServeOptions } from "../options/serve-options.ts";
import { AccessRefusal } from "../server/access/access-refusal.ts";
import type { UploadLimits } from "../server/access/upload-limits.ts";
import type { AdmittedHandler } from "../server/http-guard.ts";
import { logAnswered, type RequestContext } from "../server/http-log.ts";
import { HttpSpan } from "../server/http-span.ts";
import type { Services } from "../services.ts";
import type { RequestMetrics } from "../telemetry/request-metrics.ts";
import { isWanted } from "../telemetry/wanted-signals.ts";
import { parseAllUpstreams } from "./upstreams.ts";

/** A binary cache of Nix. Disposing closes what it has besides the stores. */
export interface BinaryCache extends AsyncDisposable {
  readonly handle: AdmittedHandler;
}

/** What a binary cache shares with the rest of a server. */
interface BinaryCacheContext {
  readonly logger: Logger;
  readonly metrics: RequestMetrics;
  /** Limits of uploads over HTTP and gRPC together. */
  readonly uploads: UploadLimits;
}

/** Opens a binary cache over stores, which are not disposed of with it. Logs and counts the requests that it answers. */
export async function openBinaryCache(
  options: ServeOptions,
  services: Services,
  { logger, metrics, uploads }: BinaryCacheContext,
): Promise<BinaryCache> {
  await using stack = new AsyncDisposableStack();
  const objects = stack.use(await openCacheObjects(options, logger));
  const isTraced = isWanted("traces", options.otlp ?? false);
  const known = new WeakMap<HttpRequest, RequestContext>();
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
      uploads: { all: maxUploads, perClient: maxUploadsPerClient, admit: admitTo(uploads) },
      upstreams: {
        caches: await parseAllUpstreams(options, services.compositionFile),
        absentTtlMs: options.upstreamAbsentTtl * 1000,
        onTrouble: (message) => logger.warn(message),
      },
      onSweepError: (err) => logger.warn({ err }, "cannot delete abandoned uploads"),
      onAnswered(answered, request) {
        const context = known.get(request);
        logAnswered({ logger, metrics }, answered, request, context);
        context?.span?.end(answered.status);
      },
    }),
  );
  const opened = stack.move();
  return {
    handle(request, response, { tokenName, client }) {
      const span = isTraced ? HttpSpan.server(request) : undefined;
      const isPlain = tokenName === undefined && span === undefined;
      if (!isPlain) known.set(request, { tokenName, span });
      const isWaiting = request.headers.expect !== undefined;
      if (span === undefined) bridge.handle(request, response, isWaiting, client);
      else span.run(() => bridge.handle(request, response, isWaiting, client));
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

/** Opens what belongs to the binary cache and to no store path. One that cannot be written is warned of. */
async function openCacheObjects(
  { cacheObjectAddr = "memory:///" }: ServeOptions,
  logger: Logger,
): Promise<ObjectStore> {
  const advice = "make it writable for this user, or name another with --cache-object-addr";
  try {
    const objects = await openObjectStore(cacheObjectAddr);
    const reason = await whyObjectsReadOnly(cacheObjectAddr);
    if (reason !== undefined) {
      const { name: store } = objects;
      logger.warn({ store }, `Cannot write what belongs to the binary cache: ${reason}; ${advice}`);
    }
    return objects;
  } catch (error) {
    if (!hasCode(error, "permission_denied")) throw error;
    throw new CastoreError(error.code, `${error.message}; ${advice}`, { cause: error });
  }
}

/** Returns what counts an upload for limits, and refuses one that is beyond them as HTTP does. */
function admitTo(limits: UploadLimits): UploadSlotOptions["admit"] {
  return async (client, signal) => {
    try {
      await limits.enter(client, signal);
    } catch (error) {
      if (!(error instanceof AccessRefusal)) throw error;
      const { httpStatus, httpHeaders: headers, rawMessage } = error;
      throw new HttpError(httpStatus, rawMessage, { headers, cause: error });
    }
    return { [Symbol.dispose]: () => limits.leave(client) };
  };
}
