import { context, propagation, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { BatchSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";
import { spanExporter } from "./otlp.ts";
import { processResource } from "./resource.ts";
import { samplerByName } from "./sampler.ts";

/**
 * Sends the spans of this process to the collector that the variables of OpenTelemetry name, until it is disposed of.
 *
 * @throws Error for a variable with a value that is not known
 */
export async function startSdk(warn: (message: string) => void): Promise<AsyncDisposable> {
  const provider = new TracerProvider({
    resource: processResource(),
    sampler: samplerByName(),
    spanProcessors: [new BatchSpanProcessor({ exporter: await spanExporter(warn) })],
  });
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  trace.setGlobalTracerProvider(provider);
  return { [Symbol.asyncDispose]: () => provider.shutdown() };
}
