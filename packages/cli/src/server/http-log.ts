import type { Answered, HttpRequest } from "@tvix/nar-bridge";
import type { Logger } from "pino";
import type { RequestMetrics } from "../telemetry/request-metrics.ts";
import { routeOf } from "./http-route.ts";
import type { HttpSpan } from "./http-span.ts";
import { peerOf } from "./one-port.ts";

/** What is known of a request besides its answer. */
export interface RequestContext {
  /** Name of the token that it came with. */
  readonly tokenName?: string | undefined;
  /** Its span, if spans are recorded. */
  readonly span?: HttpSpan | undefined;
}

/** Writes the log line of a request that is no call, and counts it. */
export function logAnswered(
  { logger, metrics }: { readonly logger: Logger; readonly metrics?: RequestMetrics | undefined },
  answered: Answered,
  request: HttpRequest,
  { tokenName, span }: RequestContext = {},
): void {
  const { method, target, status, complete, durationMs, bytesIn, bytesOut, error } = answered;
  const code = complete ? String(status) : "canceled";
  metrics?.record({ kind: routeOf(target), code, durationMs, bytesIn, bytesOut });
  const isFault = (status ?? 0) >= 500 || (!complete && !request.aborted);
  const isRefusedWrite = ["PUT", "POST", "DELETE"].includes(method) && (status ?? 0) >= 400;
  const level = isFault || isRefusedWrite ? "warn" : "debug";
  if (!logger.isLevelEnabled(level)) return;
  logger[level](
    {
      ...{ method, target, status, complete },
      http: request.httpVersion,
      durationMs: Math.round(durationMs * 1000) / 1000,
      ...{ bytesIn, bytesOut },
      peer: peerOf(request.socket),
      ...(tokenName !== undefined && { token: tokenName }),
      ...(span !== undefined && { traceId: span.traceId }),
      ...(error !== undefined && (isFault ? { err: error } : { error: (error as Error).message })),
    },
    "request",
  );
}
