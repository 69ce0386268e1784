import { SpanStatusCode, trace } from "@opentelemetry/api";
import type { TracingOptions } from "./tracing-option.ts";
import { isWanted } from "./wanted-signals.ts";

/**
 * Starts sending spans if an option or the variables of OpenTelemetry ask for it. Disposing sends the rest, within the
 * time limit of the exporter; dispose of it last.
 *
 * @param warn is called once if spans cannot be sent, which fails nothing
 */
export async function startTracing(
  { otlp = false }: TracingOptions,
  warn: (message: string) => void,
): Promise<AsyncDisposable | undefined> {
  if (!isWanted("traces", otlp)) return undefined;
  const { startSdk } = await import("./tracing-sdk.ts"); // slow to load
  try {
    return await startSdk(warn);
  } catch (error) {
    warn(`Cannot send spans: ${(error as Error).message}`);
    return undefined;
  }
}

/** Runs the body of a command as the root span of a trace. */
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
