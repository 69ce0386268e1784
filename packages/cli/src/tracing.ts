import { SpanStatusCode, trace } from "@opentelemetry/api";
import type { TracingOptions } from "./tracing-option.ts";

/**
 * Begins to send spans, if they are wanted: by an option, or by the variables of OpenTelemetry. To be disposed of last:
 * sends what is left, for as long as the exporter may take.
 *
 * @param warn is told once if they cannot be sent, which fails nothing
 */
export async function startTracing(
  { otlp = false }: TracingOptions,
  warn: (message: string) => void,
): Promise<AsyncDisposable | undefined> {
  const { env } = process;
  const endpoint = env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT || env.OTEL_EXPORTER_OTLP_ENDPOINT;
  const isDisabled = env.OTEL_SDK_DISABLED?.trim().toLowerCase() === "true";
  if (isDisabled || !(otlp || endpoint)) return undefined;
  const { startSdk } = await import("./tracing-sdk.ts"); // which takes a while
  try {
    return startSdk(warn);
  } catch (error) {
    warn(`Cannot send spans: ${(error as Error).message}`);
    return undefined;
  }
}

/** Does what a command does, as the root of a trace. */
export async function traceCommand<T>(name: string, body: () => Promise<T>): Promise<T> {
  return await trace.getTracer("@tvix/cli").startActiveSpan(name, async (span) => {
    try {
      return await body();
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      span.setStatus({ code: SpanStatusCode.ERROR, message });
      throw error;
    } finally {
      span.end();
    }
  });
}
