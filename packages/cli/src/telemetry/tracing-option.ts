import { Option } from "commander";

/** Options of tracing. */
export interface TracingOptions {
  /** Whether to send spans and metrics to the default collector if no variable of OpenTelemetry names one. */
  otlp?: boolean;
}

/** Returns the option that makes a command send spans. */
export function tracingOption(): Option {
  return new Option(
    "--otlp",
    "send spans, and metrics of a daemon, to an OpenTelemetry collector: that in " +
      "OTEL_EXPORTER_OTLP_ENDPOINT, for which this option is not needed, or the one on this machine",
  );
}
