/** What is sent to a collector. */
export type Signal = "traces" | "metrics";

/** Tells whether the variables of OpenTelemetry, or an option, ask for a signal to be sent. */
export function isWanted(signal: Signal, otlp: boolean): boolean {
  const { env } = process;
  if (env.OTEL_SDK_DISABLED?.trim().toLowerCase() === "true") return false;
  const exporter = env[`OTEL_${signal.toUpperCase()}_EXPORTER`]?.trim().toLowerCase();
  if (exporter) return exporter === "otlp";
  return otlp || variableOf(signal, "ENDPOINT") !== undefined;
}

/** Returns a variable of the exporter of a signal, or else of all; `undefined` where both are unset or empty. */
export function variableOf(
  signal: Signal,
  name: "ENDPOINT" | "PROTOCOL" | "TIMEOUT",
): string | undefined {
  const { env } = process;
  return (
    env[`OTEL_EXPORTER_OTLP_${signal.toUpperCase()}_${name}`]?.trim() ||
    env[`OTEL_EXPORTER_OTLP_${name}`]?.trim() ||
    undefined
  );
}
