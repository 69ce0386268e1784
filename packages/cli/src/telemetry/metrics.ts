import type { Meter } from "@opentelemetry/api";
import { PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import {
  AggregationTemporality,
  type IMetricReader,
  InstrumentType,
  MeterProvider,
  MetricReader,
  PeriodicExportingMetricReader,
  type ScopeMetrics,
} from "@opentelemetry/sdk-metrics";
import { Histograms } from "./histograms.ts";
import { mergeMetrics } from "./merge-metrics.ts";
import { metricExporter } from "./otlp.ts";
import { processResource } from "./resource.ts";
import type { TracingOptions } from "./tracing-option.ts";
import { isWanted } from "./wanted-signals.ts";

const SCOPE = "tvix-store";

/** The metrics of one process, a plain value. */
export type ProcessMetrics = readonly ScopeMetrics[];

/**
 * The metrics of this process. The same instruments are read for Prometheus and sent to an OpenTelemetry collector. Disposing
 * sends the last values.
 */
export class Metrics implements AsyncDisposable {
  /** Makes instruments. */
  readonly meter: Meter;
  /** Makes histograms. */
  readonly histograms: Histograms;
  readonly #provider: MeterProvider;
  readonly #reader: OnDemandReader;

  private constructor(histograms: Histograms, readers: readonly IMetricReader[]) {
    this.histograms = histograms;
    const metricProducers = [histograms.producer(AggregationTemporality.CUMULATIVE)];
    this.#reader = new OnDemandReader({ metricProducers });
    this.#provider = new MeterProvider({
      resource: processResource(),
      readers: [this.#reader, ...readers],
    });
    this.meter = this.#provider.getMeter(SCOPE);
  }

  /**
   * Starts to take metrics, and to send them if an option or the variables of OpenTelemetry ask for it.
   *
   * @param warn is called once if metrics cannot be sent, which fails nothing
   */
  static async start(
    { otlp = false }: TracingOptions,
    warn: (message: string) => void,
  ): Promise<Metrics> {
    const histograms = new Histograms(SCOPE);
    const readers: IMetricReader[] = [];
    if (isWanted("metrics", otlp)) {
      const intervalMs = Number(process.env.OTEL_METRIC_EXPORT_INTERVAL) || 60_000;
      const timeoutMs = Number(process.env.OTEL_METRIC_EXPORT_TIMEOUT) || 30_000;
      try {
        const exporter = await metricExporter(warn);
        const temporality =
          exporter.selectAggregationTemporality?.(InstrumentType.HISTOGRAM) ??
          AggregationTemporality.CUMULATIVE;
        readers.push(
          new PeriodicExportingMetricReader({
            exporter,
            metricProducers: [histograms.producer(temporality)],
            exportIntervalMillis: intervalMs,
            exportTimeoutMillis: Math.min(timeoutMs, intervalMs), // the reader refuses a longer one
          }),
        );
      } catch (error) {
        warn(`Cannot send metrics: ${(error as Error).message}`);
      }
    }
    return new Metrics(histograms, readers);
  }

  /** Reads all instruments. */
  async collect(): Promise<ProcessMetrics> {
    const { resourceMetrics } = await this.#reader.collect();
    return resourceMetrics.scopeMetrics;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#provider.shutdown();
  }
}

/** Returns metrics in the text format of Prometheus, those of several processes added up. */
export function prometheusText(all: readonly ProcessMetrics[]): string {
  const serializer = new PrometheusSerializer(undefined, false, undefined, true, true);
  return serializer.serialize({ resource: processResource(), scopeMetrics: mergeMetrics(all) });
}

/** The content type of {@link prometheusText}. */
export const PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** Reads instruments when it is asked to. */
class OnDemandReader extends MetricReader {
  protected override async onShutdown(): Promise<void> {}

  protected override async onForceFlush(): Promise<void> {}
}
