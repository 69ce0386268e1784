import type { IncomingHttpHeaders, OutgoingHttpHeaders } from "node:http2";
import type { DescMethod } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import {
  type Attributes,
  type Context,
  context,
  isSpanContextValid,
  propagation,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from "@opentelemetry/api";
import type { RpcError } from "./rpc-error.ts";

const tracer = trace.getTracer("@tvix/castore");

/** Status codes of server errors, as opposed to client errors. */
const SERVER_FAULTS: ReadonlySet<Code> = new Set([
  Code.Unknown,
  Code.DeadlineExceeded,
  Code.Unimplemented,
  Code.Internal,
  Code.Unavailable,
  Code.DataLoss,
]);

/** The client span or server span of a gRPC call, with the attributes of the OpenTelemetry conventions for RPC. */
export class RpcSpan {
  readonly #span: Span;
  readonly #isFault: (code: Code) => boolean;
  #ended = false;
  /** The context that has this span as the active one. */
  readonly context: Context;

  private constructor(span: Span, around: Context, isFault: (code: Code) => boolean) {
    this.#span = span;
    this.#isFault = isFault;
    this.context = trace.setSpan(around, span);
  }

  /**
   * Starts a client span; `undefined` if no spans are recorded.
   *
   * @param address the address of the server, see `openChannel`
   */
  static client(method: DescMethod, address: string): RpcSpan | undefined {
    const around = context.active();
    const span = begin(method, SpanKind.CLIENT, around);
    span?.setAttributes({ "rpc.system.name": "grpc", ...serverOf(address) });
    return span && new RpcSpan(span, around, (code) => code !== Code.Canceled);
  }

  /**
   * Starts a server span in the trace that the headers name; `undefined` if no spans are recorded.
   *
   * @param peer the client, as `host:port` or `unix`
   */
  static server(
    method: DescMethod,
    headers: IncomingHttpHeaders,
    peer: string,
  ): RpcSpan | undefined {
    const around = propagation.extract(ROOT_CONTEXT, headers);
    const span = begin(method, SpanKind.SERVER, around);
    const isGrpc = headers["content-type"]?.startsWith("application/grpc") ?? false;
    span?.setAttribute("rpc.system.name", isGrpc ? "grpc" : "connectrpc");
    const [, host] = /^\[?(.*?)\]?:\d+$/.exec(peer) ?? [];
    if (host !== undefined) span?.setAttribute("network.peer.address", host);
    return span && new RpcSpan(span, around, (code) => SERVER_FAULTS.has(code));
  }

  get traceId(): string {
    return this.#span.spanContext().traceId;
  }

  /** Returns the headers that propagate the trace to the server. */
  headers(): OutgoingHttpHeaders {
    const headers: OutgoingHttpHeaders = {};
    propagation.inject(this.context, headers);
    return headers;
  }

  /** Ends the span with the status of the call. Does nothing once it has ended. */
  end(failure: RpcError | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    const status = failure === undefined ? "OK" : statusName(failure.code);
    this.#span.setAttribute("rpc.status_code", status);
    if (failure !== undefined && this.#isFault(failure.code)) {
      this.#span.setAttribute("error.type", status);
      this.#span.setStatus({ code: SpanStatusCode.ERROR, message: failure.rawMessage });
    }
    this.#span.end();
  }
}

function begin(method: DescMethod, kind: SpanKind, around: Context): Span | undefined {
  const name = `${method.parent.typeName}/${method.name}`;
  const span = tracer.startSpan(name, { kind }, around);
  if (!isSpanContextValid(span.spanContext())) return undefined;
  return span.setAttribute("rpc.method", name);
}

function serverOf(address: string): Attributes {
  const { protocol, hostname, port, pathname } = new URL(address.slice("grpc+".length));
  if (protocol === "unix:") return { "server.address": decodeURIComponent(pathname) };
  const usual = protocol === "https:" ? 443 : 80;
  const host = hostname.replace(/^\[(.*)\]$/, "$1");
  return { "server.address": host, "server.port": Number(port) || usual };
}

/** Returns the gRPC name of a code, such as `NOT_FOUND`. */
function statusName(code: Code): string {
  if (code === Code.Canceled) return "CANCELLED";
  const name: string = Code[code] ?? "Unknown";
  return name.replace(/(?!^)[A-Z]/g, "_$&").toUpperCase();
}
