import { type Attributes, context, propagation, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import {
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
  type SpanProcessor,
  TracerProvider,
} from "@opentelemetry/sdk-trace";

/** The properties of a span that tests compare. */
interface SpanSummary {
  readonly name: string;
  readonly attributes: Attributes;
  /** The name of the span around it. */
  readonly parent: string | undefined;
}

/** The recorded spans of a test file. */
export interface TakenSpans {
  /** Returns and forgets the spans that have ended since the last call, in the order of their ends. */
  take(): SpanSummary[];
  /** The spans that the next {@link take} returns, with all properties. */
  readonly raw: readonly ReadableSpan[];
  /** Number of spans that have started and not ended. */
  readonly open: number;
}

/** Records the spans of this process in memory. Called once in a test file. */
export function takeSpans(): TakenSpans {
  const exporter = new InMemorySpanExporter();
  let open = 0;
  const counter: SpanProcessor = {
    onStart() {
      open += 1;
    },
    onEnd() {
      open -= 1;
    },
    forceFlush: async () => undefined,
    shutdown: async () => undefined,
  };
  const spanProcessors = [new SimpleSpanProcessor({ exporter }), counter];
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  trace.setGlobalTracerProvider(new TracerProvider({ spanProcessors }));
  const names = new Map<string, string>();
  return {
    take() {
      const spans = exporter.getFinishedSpans();
      for (const span of spans) names.set(span.spanContext().spanId, span.name);
      const taken = spans.map(({ name, attributes, parentSpanContext }) => {
        const parent = parentSpanContext && (names.get(parentSpanContext.spanId) ?? "elsewhere");
        return { name, attributes, parent };
      });
      exporter.reset();
      return taken;
    },
    get raw() {
      return exporter.getFinishedSpans();
    },
    get open() {
      return open;
    },
  };
}
