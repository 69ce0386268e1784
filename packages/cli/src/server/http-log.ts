import type { Answered, HttpRequest } from "@tvix/nar-bridge";
import type { Logger } from "pino";
import { peerOf } from "./one-port.ts";

/** Writes the log line of a request that is no call. */
export function logAnswered(
  logger: Logger,
  answered: Answered,
  request: HttpRequest,
  tokenName?: string,
): void {
  const { method, target, status, complete, durationMs, bytesIn, bytesOut, error } = answered;
  const isFault = (status ?? 0) >= 500 || (!complete && !request.aborted);
  const level = isFault ? "warn" : "info";
  if (!logger.isLevelEnabled(level)) return;
  logger[level](
    {
      ...{ method, target, status, complete },
      http: request.httpVersion,
      durationMs: Math.round(durationMs * 1000) / 1000,
      ...{ bytesIn, bytesOut },
      peer: peerOf(request.socket),
      ...(tokenName !== undefined && { token: tokenName }),
      ...(error !== undefined && (isFault ? { err: error } : { error: (error as Error).message })),
    },
    "request",
  );
}
