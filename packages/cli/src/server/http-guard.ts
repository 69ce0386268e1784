import type { ServerResponse } from "node:http";
import { stopSender } from "@tvix/castore/rpc";
import type { Logger } from "pino";
import type { RequestMetrics } from "../telemetry/request-metrics.ts";
import type { AccessRefusal } from "./access/access-refusal.ts";
import type { Guard } from "./access/guard.ts";
import { scopeOfRequest } from "./access/http-scopes.ts";
import { logAnswered } from "./http-log.ts";
import { pathOf } from "./http-route.ts";
import { type HttpRequest, type HttpResponse, peerOf, type RequestHandler } from "./one-port.ts";
import { limitSilence } from "./silence.ts";

/** Options of {@link guardRequests}. */
export interface HttpGuardOptions {
  guard: Guard;
  /** Receives a line for each request that is refused. */
  logger: Logger;
  /** Counts them. Default: nothing does. */
  metrics?: RequestMetrics | undefined;
  /** How long a client may send nothing of a request that is not complete, in milliseconds. */
  bodyTimeoutMs: number;
}

/** Who has sent a request that is admitted. */
interface RequestSource {
  /** The token that it came with; `undefined` if there was none. */
  readonly tokenName: string | undefined;
  /** Whose limits the request counts for. */
  readonly client: string;
}

/** Answers a request that is admitted. Must not throw. One with `Expect: 100-continue` waits for `writeContinue`. */
export type AdmittedHandler = (
  request: HttpRequest,
  response: HttpResponse,
  source: RequestSource,
) => void;

/** Returns a handler that gets the requests which a guard admits; the others are refused before their bodies are read. */
export function guardRequests(
  handler: AdmittedHandler,
  { guard, logger, metrics, bodyTimeoutMs }: HttpGuardOptions,
): RequestHandler {
  return (request, response) => {
    const startedMs = performance.now();
    const { method = "", url: target = "" } = request;
    const { authorization } = request.headers;
    let tokenName: string | undefined;
    const call = {
      scope: scopeOfRequest(method, pathOf(target)),
      authorization,
      peer: peerOf(request.socket),
      onToken(name: string) {
        tokenName = name;
      },
    };
    const answer = (client: string) => {
      limitSilence(request, bodyTimeoutMs, () => undefined);
      handler(request, response, { tokenName, client });
    };
    const refuse = (error: AccessRefusal) => {
      const { httpStatus: status, httpHeaders, rawMessage } = error;
      const text = `${rawMessage}\n`;
      const headers = { ...httpHeaders, "content-type": "text/plain; charset=utf-8" };
      (response as ServerResponse).writeHead(status, headers); // both classes have the methods used here
      response.end(method === "HEAD" ? "" : text);
      if ("stream" in request) stopSender(request.stream);
      logAnswered(
        { logger, metrics },
        {
          ...{
            method,
            target,
            status,
            error: { message: rawMessage },
            complete: true,
            bytesIn: 0,
            bytesOut: text.length,
          },
          durationMs: performance.now() - startedMs,
        },
        request,
      );
    };
    try {
      const passed = guard.pass(call, answer);
      if (passed instanceof Promise) passed.catch(refuse);
    } catch (error) {
      refuse(error as AccessRefusal);
    }
  };
}
