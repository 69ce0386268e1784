import { Option } from "commander";

/** Whether spans are sent somewhere, as given on the command line. */
export interface TracingOptions {
  /** Sends them even if no variable of OpenTelemetry says where. */
  otlp?: boolean;
}

/** The option that has a command send spans. */
export function tracingOption(): Option {
  return new Option(
    "--otlp",
    "send spans to an OpenTelemetry collector, http://localhost:4318 unless " +
      "OTEL_EXPORTER_OTLP_ENDPOINT says which (which suffices to have them sent)",
  );
}
