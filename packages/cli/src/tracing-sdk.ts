import { context, propagation, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  type ExportResult,
  ExportResultCode,
  W3CTraceContextPropagator,
} from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import {
  defaultResource,
  detectResources,
  envDetector,
  resourceFromAttributes,
} from "@opentelemetry/resources";
import {
  BatchSpanProcessor,
  type ReadableSpan,
  type SpanExporter,
  TracerProvider,
} from "@opentelemetry/sdk-trace";
import manifest from "../package.json" with { type: "json" };

/** Default time limit for sending spans, all attempts together, in ms. Only the end of a command waits for it. */
const TIMEOUT_MS = 3000;

/** Sends the spans of this process to the collector that the variables of OpenTelemetry name, until it is disposed of. */
export function startSdk(warn: (message: string) => void): AsyncDisposable {
  const exporter = new ForgivingExporter(new OTLPTraceExporter(ownTimeout()), warn);
  const own = { "service.name": "tvix-store", "service.version": manifest.version };
  const provider = new TracerProvider({
    resource: defaultResource()
      .merge(resourceFromAttributes(own))
      .merge(detectResources({ detectors: [envDetector] })),
    spanProcessors: [new BatchSpanProcessor({ exporter })],
  });
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  trace.setGlobalTracerProvider(provider);
  return { [Symbol.asyncDispose]: () => provider.shutdown() };
}

function ownTimeout(): { timeoutMillis?: number } {
  const { OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT } = process.env;
  const isSet = OTEL_EXPORTER_OTLP_TRACES_TIMEOUT || OTEL_EXPORTER_OTLP_TIMEOUT;
  return isSet ? {} : { timeoutMillis: TIMEOUT_MS };
}

/** Drops spans that cannot be sent, and warns once until sending works again. */
class ForgivingExporter implements SpanExporter {
  readonly #inner: SpanExporter;
  readonly #warn: (message: string) => void;
  #failed = false;

  constructor(inner: SpanExporter, warn: (message: string) => void) {
    this.#inner = inner;
    this.#warn = warn;
  }

  export(spans: ReadableSpan[], done: (result: ExportResult) => void): void {
    this.#inner.export(spans, ({ code, error }) => {
      const failed = code !== ExportResultCode.SUCCESS;
      if (failed && !this.#failed) {
        this.#warn(`Cannot send spans: ${error?.message || "the collector refuses them"}`);
      }
      this.#failed = failed;
      done({ code: ExportResultCode.SUCCESS });
    });
  }

  shutdown(): Promise<void> {
    return this.#inner.shutdown();
  }
}
