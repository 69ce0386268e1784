import type { DescMethod } from "@bufbuild/protobuf";
import { type ConnectRouter, createConnectRouter } from "@connectrpc/connect";
import { compressionBrotli, compressionGzip } from "@connectrpc/connect-node";
import { context } from "@opentelemetry/api";
import { MAX_MESSAGE_BYTES } from "@tvix/castore";
import {
  answerDirectly,
  CallBudget,
  directMethods,
  isDirect,
  RpcSpan,
  registerServices,
  type ServedService,
} from "@tvix/castore/rpc";
import type { Logger } from "pino";
import type { RequestMetrics } from "../telemetry/request-metrics.ts";
import { Guard, type GuardedRequest } from "./access/guard.ts";
import { scopeOfCall } from "./access/rpc-scopes.ts";
import { pathOf } from "./http-route.ts";
import { type HttpHandlers, peerOf, type RequestHandler } from "./one-port.ts";
import { CallLog, noteErrors } from "./request-log.ts";
import { isUncounted, RpcExchange } from "./rpc-exchange.ts";
import { limitSilence } from "./silence.ts";

/** Options of {@link createRpcHandler}. */
export interface RpcHandlerOptions {
  /** The services to serve, directly on HTTP/2 streams where possible. */
  services: readonly ServedService[];
  /** Registers further services. */
  routes: (router: ConnectRouter) => void;
  /** Receives a line for each call. */
  logger: Logger;
  /** Counts calls. Default: nothing does. */
  metrics?: RequestMetrics | undefined;
  /** Bounds the memory of all calls together. Default: one of 16 MiB. */
  budget?: CallBudget;
  /** Admits calls. Default: one that admits all. */
  guard?: Guard | undefined;
  /** How long a client may send nothing of a request that is not complete, in milliseconds. Default: 120,000. */
  bodyTimeoutMs?: number | undefined;
  /** Answers and logs requests that are no calls: other paths, and no content type of gRPC. Default: 404. */
  onOther?: RequestHandler | undefined;
}

/**
 * Serves gRPC, gRPC-web and Connect over both versions of HTTP. Requests may be compressed; responses are
 * not, since contents rarely compress further in transit and other messages are small.
 */
export function createRpcHandler({
  services,
  routes,
  logger,
  metrics,
  budget = new CallBudget(),
  guard = new Guard(),
  bodyTimeoutMs = 120_000,
  onOther,
}: RpcHandlerOptions): HttpHandlers {
  const router = createConnectRouter({
    acceptCompression: [compressionGzip, compressionBrotli],
    compressMinBytes: Number.POSITIVE_INFINITY,
    readMaxBytes: MAX_MESSAGE_BYTES, // after decompression
    interceptors: [noteErrors],
  });
  registerServices(router, services);
  routes(router);
  const direct = new Map(services.flatMap((service) => [...directMethods(service)]));
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  return {
    onStream(stream, headers, peer) {
      const path = headers[":path"] ?? "";
      const method = direct.get(path);
      if (method === undefined || !isDirect(headers)) return false;
      const described = handlers.get(path)?.method;
      const span = described && RpcSpan.server(described, headers, peer);
      const log = new CallLog(logger, {
        method: described,
        path,
        contentType: headers["content-type"],
        httpVersion: "2.0",
        peer,
        span,
        metrics,
      });
      const call = guardedCall(described, headers.authorization, peer, log);
      limitSilence(stream, bodyTimeoutMs, (error) => {
        log.error = error;
      });
      void inSpan(span, () => answerDirectly(stream, guard.method(method, call), log, budget));
      return true;
    },

    onRequest(request, response) {
      const path = pathOf(request.url ?? "");
      const handler = handlers.get(path);
      const { "content-type": contentType, authorization } = request.headers;
      if (handler === undefined && onOther && !isGrpc(contentType)) {
        onOther(request, response);
        return;
      }
      const peer = peerOf(request.socket);
      const span = handler && RpcSpan.server(handler.method, request.headers, peer);
      const log = new CallLog(logger, {
        method: handler?.method,
        path,
        contentType,
        httpVersion: request.httpVersion,
        peer,
        span,
        metrics,
      });
      const exchange = new RpcExchange(request, response, log, budget);
      const call = guardedCall(handler?.method, authorization, peer, log);
      if (!isUncounted(path)) {
        limitSilence(request, bodyTimeoutMs, (error) => {
          log.error = error;
        });
      }
      inSpan(span, () => exchange.run(handler, guard, call).catch((error) => exchange.fail(error)));
    },
  };
}

function guardedCall(
  method: DescMethod | undefined,
  authorization: string | undefined,
  peer: string,
  log: CallLog,
): GuardedRequest {
  const onToken = (name: string) => {
    log.tokenName = name;
  };
  return { scope: scopeOfCall(method), authorization, peer, onToken };
}

function isGrpc(contentType: string | undefined): contentType is string {
  return contentType?.startsWith("application/grpc") ?? false;
}

/** Runs an action in the context of a span, if there is one. */
function inSpan<T>(span: RpcSpan | undefined, action: () => T): T {
  return span === undefined ? action() : context.with(span.context, action);
}
