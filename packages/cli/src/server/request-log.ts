import type { DescMethod } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ContextKey,
  createContextKey,
  type Interceptor,
} from "@connectrpc/connect";
import { RpcError, type RpcSpan } from "@tvix/castore/rpc";
import type { Logger } from "pino";
import type { RequestMetrics } from "../telemetry/request-metrics.ts";

/** Properties of a call that are known when it begins. */
export interface CallStart {
  /** The method; `undefined` if no method has this path. */
  method: DescMethod | undefined;
  /** Path of the request, without its query. */
  path: string;
  /** Content type of the request, which determines the protocol. */
  contentType: string | undefined;
  /** Version of HTTP, such as `"2.0"`. */
  httpVersion: string;
  /** The client, as `host:port` or `unix`. */
  peer: string;
  /** The span of the call, if there is one. It ends with the call. */
  span: RpcSpan | undefined;
  /** Counts the call when it has ended. Default: nothing does. */
  metrics?: RequestMetrics | undefined;
}

/** Codes of failures of the server rather than the client. */
const FAULTS: ReadonlySet<Code> = new Set([
  Code.Unknown,
  Code.Internal,
  Code.DataLoss,
  Code.Unavailable,
  Code.ResourceExhausted,
]);

/** Codes for the HTTP statuses of calls that are refused before they reach a method. */
const HTTP_CODES: Readonly<Record<number, Code>> = {
  400: Code.InvalidArgument,
  404: Code.Unimplemented,
  405: Code.Unimplemented,
  415: Code.Unimplemented,
  429: Code.ResourceExhausted,
  501: Code.Unimplemented,
  505: Code.Unimplemented,
};

/** Services that clients call all the time by themselves. */
const CHATTER = /^grpc\.(?:health|reflection)\./;

/** Measures one call and writes its log line. */
export class CallLog {
  /** Bytes of the request body read so far. */
  bytesIn = 0;
  /** Bytes of the response body written so far. */
  bytesOut = 0;
  /** The error that the method threw, if it did. */
  error: unknown;
  /** Name of the token that the request came with. */
  tokenName: string | undefined;

  readonly #logger: Logger;
  readonly #start: CallStart;
  readonly #startedMs: number = performance.now();
  #wireCode: Code | undefined;

  constructor(logger: Logger, start: CallStart) {
    this.#logger = logger;
    this.#start = start;
  }

  /** Records a response without an error of a method: its HTTP status, and the gRPC status if one was sent. */
  answered(httpStatus: number, grpcStatus?: string | null): void {
    if (grpcStatus) this.#wireCode = Number(grpcStatus) || undefined;
    else if (httpStatus >= 400) this.#wireCode = HTTP_CODES[httpStatus] ?? Code.Internal;
  }

  /** Writes the line and ends the span. Call it once. */
  end(outcome: "complete" | "cut"): void {
    const { method, path, peer, httpVersion, span, metrics } = this.#start;
    const code = this.#code(outcome);
    const codeText = code === undefined ? "ok" : codeName(code);
    const durationMs = performance.now() - this.#startedMs;
    const { bytesIn, bytesOut } = this;
    metrics?.record({
      kind: method ? `${method.parent.typeName}/${method.name}` : "unknown",
      code: codeText,
      ...{ durationMs, bytesIn, bytesOut },
    });
    const fault = code !== undefined && FAULTS.has(code);
    const quiet = method !== undefined && CHATTER.test(method.parent.typeName);
    const refused = method !== undefined && code !== undefined && isRefusedWrite(method, code);
    const level = fault || refused ? "warn" : quiet ? "trace" : "debug";
    this.#logger[level](
      {
        ...(method ? { service: method.parent.typeName, method: method.name } : { path }),
        protocol: protocolOf(this.#start.contentType),
        http: httpVersion,
        code: codeText,
        durationMs: Math.round(durationMs * 1000) / 1000,
        bytesIn,
        bytesOut,
        peer,
        ...(this.tokenName !== undefined && { token: this.tokenName }),
        ...(span && { traceId: span.traceId }),
        ...this.#cause(fault),
      },
      "call",
    );
    span?.end(this.#failure(code));
  }

  #code(outcome: "complete" | "cut"): Code | undefined {
    if (this.error !== undefined) return codeOf(this.error);
    return this.#wireCode ?? (outcome === "cut" ? Code.Canceled : undefined);
  }

  #failure(code: Code | undefined): RpcError | undefined {
    if (this.error !== undefined) return RpcError.from(this.error, Code.Internal);
    return code === undefined ? undefined : new RpcError(code, "");
  }

  /** Returns the whole error for a fault of the server, else the message that the client got. */
  #cause(fault: boolean): { err?: unknown; error?: string } {
    if (this.error === undefined) return {};
    if (fault) return { err: this.error };
    return { error: RpcError.from(this.error).rawMessage };
  }
}

/** Context key of the log of a call. */
export const callLogKey: ContextKey<CallLog | undefined> = createContextKey<CallLog | undefined>(
  undefined,
  { description: "call log" },
);

/** Records in the log of each call the error that its method threw, also in mid-stream. */
export const noteErrors: Interceptor = (next) => async (request) => {
  const log = request.contextValues.get(callLogKey);
  if (log === undefined) return next(request);
  try {
    const response = await next(request);
    return response.stream
      ? { ...response, message: noteStreamErrors(response.message, log) }
      : response;
  } catch (error) {
    log.error = error;
    throw error;
  }
};

async function* noteStreamErrors<T>(messages: AsyncIterable<T>, log: CallLog): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (error) {
    log.error = error;
    throw error;
  }
}

/**
 * Tells whether a call would have stored something, and was refused rather than given up. Clients ask for the methods of
 * v1alpha first, and call others where the store has none of them.
 */
function isRefusedWrite({ name, parent }: DescMethod, code: Code): boolean {
  if (!/^(?:Put|Delete)/.test(name) || code === Code.Canceled) return false;
  return code !== Code.Unimplemented || !/\.v1alpha\./.test(parent.typeName);
}

function codeOf(error: unknown): Code {
  // Any other error is sent as an internal error, without its message.
  return error instanceof ConnectError ? error.code : Code.Internal;
}

function codeName(code: Code): string {
  const name: string = Code[code] ?? "Unknown";
  return name.replace(/(?!^)[A-Z]/g, "_$&").toLowerCase();
}

function protocolOf(contentType: string | undefined): "grpc" | "grpc-web" | "connect" {
  if (contentType?.startsWith("application/grpc-web")) return "grpc-web";
  return contentType?.startsWith("application/grpc") ? "grpc" : "connect";
}
