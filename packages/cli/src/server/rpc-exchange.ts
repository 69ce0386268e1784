import type { IncomingMessage } from "node:http";
import { constants, type Http2Stream } from "node:http2";
import { Code, createContextValues } from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import {
  type BudgetedCall,
  type CallBudget,
  type CallShare,
  cancelled,
  RpcError,
  stopSender,
} from "@tvix/castore/rpc";
import { AccessRefusal } from "./access/access-refusal.ts";
import type { Guard, GuardedRequest } from "./access/guard.ts";
import type { UploadLimits } from "./access/upload-limits.ts";
import { pathOf } from "./http-route.ts";
import type { HttpRequest, HttpResponse } from "./one-port.ts";
import { type CallLog, callLogKey } from "./request-log.ts";

/** Memory limit of a call through Connect, which gathers messages by itself, in bytes. */
const CONNECT_BYTES = 8 * 1024 * 1024;

/** Calls that hold next to nothing, some of them for as long as the client lives. */
const UNCOUNTED = /^\/grpc\.(?:health|reflection)\./;

/** First byte of the frame that ends a gRPC-web response. */
const GRPC_WEB_TRAILER = 0x80;

/** A call through Connect: one request and its response. */
export class RpcExchange implements BudgetedCall {
  readonly #request: HttpRequest;
  readonly #response: HttpResponse;
  /** The stream of an HTTP/2 exchange, kept here as the request drops it at the close. */
  readonly #stream: Http2Stream | undefined;
  readonly #log: CallLog;
  readonly #share: CallShare;
  readonly #closed = new AbortController();
  /** The limits of an upload; `undefined` for any other call. */
  #uploads: UploadLimits | undefined;
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

  /**
   * Calls a method if the request is admitted, and sends its response. Without a handler, answers that there is no such
   * method.
   */
  async run(
    handler: UniversalHandler | undefined,
    guard: Guard,
    call: GuardedRequest,
  ): Promise<void> {
    if (call.scope === "write") this.#uploads = guard.uploads;
    try {
      await guard.call(call, this.#closed.signal, async () => {
        this.#sendContinue();
        if (handler === undefined) this.#refuseUnknown();
        else await this.#call(handler);
      });
    } catch (error) {
      if (!(error instanceof AccessRefusal)) throw error;
      this.#log.error = error;
      const { code, httpStatus, httpHeaders, rawMessage } = error;
      this.#refuse({ code, httpStatus, message: rawMessage }, httpHeaders);
    }
  }

  /** Has a client send the body that asked before. */
  #sendContinue(): void {
    if (this.#request.headers.expect !== undefined) this.#response.writeContinue();
  }

  /** Waits for room, calls a method and sends its response. */
  async #call(handler: UniversalHandler): Promise<void> {
    if (!isUncounted(handler.requestPath)) {
      try {
        await this.#share.reserve(CONNECT_BYTES, this.#closed.signal);
      } catch (error) {
        this.#log.error = error;
        const { code, rawMessage } = RpcError.from(error);
        this.#refuse({ code, httpStatus: 503, message: rawMessage });
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

  #refuseUnknown(): void {
    const path = pathOf(this.#request.url ?? "");
    const message = this.#isGrpc()
      ? `no method ${JSON.stringify(path)}`
      : "There is no such method here";
    this.#refuse({ code: Code.Unimplemented, httpStatus: 404, message });
  }

  #isGrpc(): boolean {
    return this.#request.headers["content-type"]?.startsWith("application/grpc") ?? false;
  }

  #refuse(
    { code, httpStatus, message }: { code: Code; httpStatus: number; message: string },
    headers: Readonly<Record<string, string>> = {},
  ): void {
    const contentType = this.#request.headers["content-type"] ?? "";
    if (contentType.startsWith("application/grpc")) {
      // All in the header, which ends the response: clients of Go take a status in no other header.
      const status = { "grpc-status": String(code), "grpc-message": encodeURIComponent(message) };
      const all = { ...headers, ...status, "content-type": contentType };
      for (const [name, value] of Object.entries(all)) this.#response.setHeader(name, value);
      this.#log.answered(200, String(code));
    } else {
      this.#writeHead(httpStatus, { ...headers, "content-type": "text/plain; charset=utf-8" });
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
        if (this.#log.bytesIn > (this.#uploads?.maxBytes ?? Number.POSITIVE_INFINITY)) {
          throw this.#uploads!.tooLarge();
        }
        this.#waitsForClient = false;
        yield chunk;
        this.#waitsForClient = true;
      }
    } catch (error) {
      throw error instanceof AccessRefusal ? error : cancelled(error);
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

/** Tells whether a call holds next to nothing, possibly for as long as the client lives. */
export function isUncounted(path: string): boolean {
  return UNCOUNTED.test(path);
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
