import type { IncomingMessage } from "node:http";
import { constants, type Http2Stream } from "node:http2";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  createConnectRouter,
  createContextValues,
} from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import { compressionBrotli, compressionGzip } from "@connectrpc/connect-node";
import { context } from "@opentelemetry/api";
import { MAX_MESSAGE_BYTES } from "@tvix/castore";
import {
  answerDirectly,
  type BudgetedCall,
  CallBudget,
  type CallShare,
  cancelled,
  directMethods,
  isDirect,
  RpcSpan,
  registerServices,
  type ServedService,
  stopSender,
} from "@tvix/castore/rpc";
import type { Logger } from "pino";
import {
  type HttpHandlers,
  type HttpRequest,
  type HttpResponse,
  peerOf,
  type RequestHandler,
} from "./one-port.ts";
import { CallLog, callLogKey, noteErrors } from "./request-log.ts";

/** Options of {@link createRpcHandler}. */
export interface RpcHandlerOptions {
  /** The services to serve, directly on HTTP/2 streams where possible. */
  services: readonly ServedService[];
  /** Registers further services. */
  routes: (router: ConnectRouter) => void;
  /** Receives a line for each call. */
  logger: Logger;
  /** Bounds the memory of all calls together. Default: one of 16 MiB. */
  budget?: CallBudget;
  /** Answers and logs requests that are no calls: other paths, and no content type of gRPC. Default: 404. */
  onOther?: RequestHandler | undefined;
}

/** Memory limit of a call through Connect, which gathers messages by itself, in bytes. */
const CONNECT_BYTES = 8 * 1024 * 1024;

/** Calls that hold next to nothing, some of them for as long as the client lives. */
const UNCOUNTED = /^\/grpc\.(?:health|reflection)\./;

/** First byte of the frame that ends a gRPC-web response. */
const GRPC_WEB_TRAILER = 0x80;

/**
 * Serves gRPC, gRPC-web and Connect over both versions of HTTP. Requests may be compressed; responses are
 * not, since contents rarely compress further in transit and other messages are small.
 */
export function createRpcHandler({
  services,
  routes,
  logger,
  budget = new CallBudget(),
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
      });
      void inSpan(span, () => answerDirectly(stream, method, log, budget));
      return true;
    },

    onRequest(request, response) {
      const path = request.url?.split("?", 1)[0] ?? "";
      const handler = handlers.get(path);
      const contentType = request.headers["content-type"];
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
      });
      const exchange = new Exchange(request, response, log, budget);
      if (handler === undefined) exchange.refuse(path, contentType);
      else
        inSpan(span, () =>
          exchange.run(handler, contentType).catch((error) => exchange.fail(error)),
        );
    },
  };
}

function isGrpc(contentType: string | undefined): contentType is string {
  return contentType?.startsWith("application/grpc") ?? false;
}

/** Runs an action in the context of a span, if there is one. */
function inSpan<T>(span: RpcSpan | undefined, action: () => T): T {
  return span === undefined ? action() : context.with(span.context, action);
}

/** One request and its response. */
class Exchange implements BudgetedCall {
  readonly #request: HttpRequest;
  readonly #response: HttpResponse;
  /** The stream of an HTTP/2 exchange, kept here as the request drops it at the close. */
  readonly #stream: Http2Stream | undefined;
  readonly #log: CallLog;
  readonly #share: CallShare;
  readonly #closed = new AbortController();
  #sent = false;
  #waitsForClient = false;

  constructor(request: HttpRequest, response: HttpResponse, log: CallLog, budget: CallBudget) {
    this.#request = request;
    this.#response = response;
    this.#stream = "stream" in request ? request.stream : undefined;
    this.#log = log;
    this.#share = budget.open(this);
    response.once("close", () => {
      this.#share.release();
      const complete = this.#sent && !this.#isCut();
      log.end(complete ? "complete" : "cut");
      if (!complete) this.#closed.abort(cancelled());
    });
  }

  progress(): number | undefined {
    return this.#waitsForClient ? this.#log.bytesIn + this.#log.bytesOut : undefined;
  }

  endStalled(): void {
    if (this.#stream) this.#stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    else this.#response.destroy();
  }

  /** Waits for room, calls a method and sends its response. */
  async run(handler: UniversalHandler, contentType: string | undefined): Promise<void> {
    if (!UNCOUNTED.test(handler.requestPath)) {
      try {
        await this.#share.reserve(CONNECT_BYTES, this.#closed.signal);
      } catch (error) {
        this.#log.error = error;
        const { code, rawMessage } = ConnectError.from(error);
        this.#refuse(contentType, { code, httpStatus: 503, message: rawMessage });
        return;
      }
    }
    const result = await handler({
      httpVersion: this.#request.httpVersion,
      method: this.#request.method ?? "",
      // Clients choose the host freely: those of unix sockets send paths.
      url: `http://localhost${this.#request.url}`,
      header: webHeaders(this.#request),
      body: this.#requestBody(),
      signal: this.#closed.signal,
      contextValues: createContextValues().set(callLogKey, this.#log),
    });
    this.#writeHead(result.status, nodeHeaders(result.header));
    let last: Uint8Array | undefined;
    for await (const chunk of result.body ?? []) {
      if (this.#closed.signal.aborted) return;
      last = chunk;
      if (this.#write(chunk)) continue;
      this.#waitsForClient = true;
      await this.#drained();
      this.#waitsForClient = false;
    }
    this.#log.answered(result.status, grpcStatus(result.trailer, result.header, last));
    if (result.trailer) this.#response.addTrailers(nodeHeaders(result.trailer));
    this.#end();
  }

  /** Answers a call to a method that does not exist. */
  refuse(path: string, contentType: string | undefined): void {
    const message = isGrpc(contentType)
      ? `no method ${JSON.stringify(path)}`
      : "There is no such method here";
    this.#refuse(contentType, { code: Code.Unimplemented, httpStatus: 404, message });
  }

  #refuse(
    contentType: string | undefined,
    { code, httpStatus, message }: { code: Code; httpStatus: number; message: string },
  ): void {
    if (isGrpc(contentType)) {
      this.#writeHead(200, {
        "content-type": contentType,
        "grpc-status": String(code),
        "grpc-message": encodeURIComponent(message),
      });
      this.#log.answered(200, String(code));
    } else {
      this.#writeHead(httpStatus, { "content-type": "text/plain; charset=utf-8" });
      this.#write(Buffer.from(`${message}\n`));
      this.#log.answered(httpStatus);
    }
    this.#end();
  }

  /** Resets the call after an error in sending the response. */
  fail(error: unknown): void {
    if (this.#closed.signal.aborted) return;
    this.#log.error ??= error;
    if (this.#stream) this.#stream.close(constants.NGHTTP2_INTERNAL_ERROR);
    else this.#response.destroy();
  }

  /** Whether the client cancelled or the connection broke. */
  #isCut(): boolean {
    if (this.#stream) return this.#stream.aborted || this.#stream.rstCode !== 0;
    return !this.#response.writableFinished;
  }

  /** Yields the body of the request. Throws if the request is cut off. */
  async *#requestBody(): AsyncIterable<Uint8Array> {
    try {
      // Destroying a request over HTTP/1.1 would destroy the connection and the response.
      this.#waitsForClient = true;
      for await (const chunk of this.#request.iterator({ destroyOnReturn: false })) {
        this.#log.bytesIn += chunk.byteLength;
        this.#waitsForClient = false;
        yield chunk;
        this.#waitsForClient = true;
      }
    } catch (error) {
      throw cancelled(error);
    } finally {
      this.#waitsForClient = false;
    }
  }

  #writeHead(status: number, headers: Record<string, string>): void {
    if (!this.#closed.signal.aborted) common(this.#response).writeHead(status, headers);
  }

  #write(chunk: Uint8Array): boolean {
    this.#log.bytesOut += chunk.byteLength;
    return common(this.#response).write(chunk);
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#response.off("drain", done);
        this.#closed.signal.removeEventListener("abort", done);
        resolve();
      };
      this.#response.on("drain", done);
      this.#closed.signal.addEventListener("abort", done);
      if (this.#closed.signal.aborted) done();
    });
  }

  #end(): void {
    this.#sent = true;
    this.#response.end();
    if (this.#stream && !this.#stream.readableEnded) stopSender(this.#stream);
  }
}

/** Gives the two classes of responses one type: TypeScript cannot call methods of their union. */
function common(response: HttpResponse): {
  writeHead(status: number, headers: Record<string, string>): unknown;
  write(chunk: Uint8Array): boolean;
} {
  return response;
}

/** Returns the status of a gRPC or gRPC-web response, from headers, trailers or body; `undefined` for Connect. */
function grpcStatus(
  trailer: Headers | undefined,
  header: Headers | undefined,
  lastChunk: Uint8Array | undefined,
): string | undefined {
  const status = trailer?.get("grpc-status") ?? header?.get("grpc-status");
  if (status) return status;
  if (!header?.get("content-type")?.startsWith("application/grpc-web")) return undefined;
  if (lastChunk?.[0] !== GRPC_WEB_TRAILER) return undefined;
  return /grpc-status: *(\d+)/i.exec(Buffer.from(lastChunk.subarray(5)).toString("latin1"))?.[1];
}

function webHeaders(request: HttpRequest): Headers {
  const headers = new Headers();
  for (const [name, value] of Object.entries(request.headers as IncomingMessage["headers"])) {
    if (name.startsWith(":") || value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) headers.append(name, one);
  }
  return headers;
}

function nodeHeaders(headers: Headers | undefined): Record<string, string> {
  return Object.fromEntries(headers ?? []);
}
