import type { IncomingHttpHeaders } from "node:http";
import {
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
import { pathOf, routeOf } from "./http-route.ts";
import type { HttpRequest } from "./one-port.ts";

const tracer = trace.getTracer("@tvix/cli");

/** The server span of a request that is no call, with the attributes of the OpenTelemetry conventions for HTTP. */
export class HttpSpan {
  readonly #span: Span;
  /** The context that has this span as the active one. */
  readonly #context: Context;

  private constructor(span: Span, around: Context) {
    this.#span = span;
    this.#context = trace.setSpan(around, span);
  }

  /** Starts a span in the trace that the headers name; `undefined` if no spans are recorded. */
  static server({ method = "", url = "", headers }: HttpRequest): HttpSpan | undefined {
    const around = propagation.extract(ROOT_CONTEXT, headers as IncomingHttpHeaders);
    const route = routeOf(url);
    const span = tracer.startSpan(`${method} ${route}`, { kind: SpanKind.SERVER }, around);
    if (!isSpanContextValid(span.spanContext())) return undefined;
    span.setAttributes({
      "http.request.method": method,
      "http.route": route,
      "url.path": pathOf(url),
    });
    return new HttpSpan(span, around);
  }

  get traceId(): string {
    return this.#span.spanContext().traceId;
  }

  /** Runs an action within the span. */
  run<T>(action: () => T): T {
    return context.with(this.#context, action);
  }

  /** Ends the span with the status of the answer; `undefined` where the client left before there was one. */
  end(status: number | undefined): void {
    if (status !== undefined) this.#span.setAttribute("http.response.status_code", status);
    if (status !== undefined && status >= 500) {
      this.#span.setAttribute("error.type", String(status));
      this.#span.setStatus({ code: SpanStatusCode.ERROR });
    }
    this.#span.end();
  }
}
