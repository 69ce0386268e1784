import { type ExportResult, ExportResultCode } from "@opentelemetry/core";
import type { PushMetricExporter } from "@opentelemetry/sdk-metrics";
import type { SpanExporter } from "@opentelemetry/sdk-trace";
import { type Signal, variableOf } from "./wanted-signals.ts";

/** Default time limit for sending, all attempts together, in ms. The end of a command waits for it. */
const TIMEOUT_MS = 3000;

const PROTOCOLS = ["grpc", "http/protobuf", "http/json"] as const;
type Protocol = (typeof PROTOCOLS)[number];

/**
 * Returns an exporter of spans, by the protocol that the variables of OpenTelemetry name.
 *
 * @param warn is called once if spans cannot be sent, until sending works again; they are dropped
 * @throws Error for an unknown protocol
 */
export async function spanExporter(warn: (message: string) => void): Promise<SpanExporter> {
  const { OTLPTraceExporter } = await {
    grpc: () => import("@opentelemetry/exporter-trace-otlp-grpc"),
    "http/protobuf": () => import("@opentelemetry/exporter-trace-otlp-proto"),
    "http/json": () => import("@opentelemetry/exporter-trace-otlp-http"),
  }[protocolOf("traces")]();
  return forgiving(new OTLPTraceExporter(ownTimeout("traces")), "spans", warn);
}

/** Returns an exporter of metrics, as {@link spanExporter} does. */
export async function metricExporter(warn: (message: string) => void): Promise<PushMetricExporter> {
  const { OTLPMetricExporter } = await {
    grpc: () => import("@opentelemetry/exporter-metrics-otlp-grpc"),
    "http/protobuf": () => import("@opentelemetry/exporter-metrics-otlp-proto"),
    "http/json": () => import("@opentelemetry/exporter-metrics-otlp-http"),
  }[protocolOf("metrics")]();
  return forgiving(new OTLPMetricExporter(ownTimeout("metrics")), "metrics", warn);
}

function protocolOf(signal: Signal): Protocol {
  const name = variableOf(signal, "PROTOCOL") ?? "http/protobuf";
  const found = PROTOCOLS.find((protocol) => protocol === name);
  if (found !== undefined) return found;
  throw new Error(
    `expected OTEL_EXPORTER_OTLP_PROTOCOL to be ${PROTOCOLS.join(", ")}, found ${JSON.stringify(name)}`,
  );
}

function ownTimeout(signal: Signal): { timeoutMillis?: number } {
  return variableOf(signal, "TIMEOUT") === undefined ? { timeoutMillis: TIMEOUT_MS } : {};
}

interface Exporter<Items> {
  export(items: Items, done: (result: ExportResult) => void): void;
}

/** Has an exporter drop what cannot be sent, with a warning until sending works again. */
function forgiving<Items, E extends Exporter<Items>>(
  exporter: E & Exporter<Items>,
  what: string,
  warn: (message: string) => void,
): E {
  const send = exporter.export.bind(exporter);
  let failed = false;
  exporter.export = (items, done) => {
    send(items, ({ code, error }) => {
      const fails = code !== ExportResultCode.SUCCESS;
      if (fails && !failed) {
        warn(`Cannot send ${what}: ${error?.message || "the collector refuses them"}`);
      }
      failed = fails;
      done({ code: ExportResultCode.SUCCESS });
    });
  };
  return exporter;
}
