import { type Attributes, type HrTime, ValueType } from "@opentelemetry/api";
import {
  AggregationTemporality,
  type DataPoint,
  DataPointType,
  type Histogram,
  type HistogramMetricData,
  type MetricProducer,
} from "@opentelemetry/sdk-metrics";
import { processResource } from "./resource.ts";

/** What a histogram measures. */
interface HistogramOptions {
  readonly name: string;
  readonly description: string;
  readonly unit: string;
  /** Upper bounds of its buckets, ascending; each belongs to its bucket. */
  readonly bounds: readonly number[];
}

/**
 * Histograms for the readers of OpenTelemetry. An instrument of its own makes a text of the attributes for each value that it is
 * given, which takes as long as to find a narinfo; here, they are looked up once.
 */
export class Histograms {
  readonly #scope: string;
  readonly #startTime: HrTime = now();
  readonly #all: { readonly options: HistogramOptions; readonly counts: HistogramCounts[] }[] = [];

  /** @param scope name of the instrumentation scope */
  constructor(scope: string) {
    this.#scope = scope;
  }

  /** Adds a histogram. Returns what makes the counts for attributes that it has not been called with before. */
  create(options: HistogramOptions): (attributes: Attributes) => HistogramCounts {
    const counts: HistogramCounts[] = [];
    this.#all.push({ options, counts });
    return (attributes) => {
      const added = new HistogramCounts(attributes, options.bounds);
      counts.push(added);
      return added;
    };
  }

  /** Returns a source of them for one reader. */
  producer(temporality: AggregationTemporality): MetricProducer {
    const isDelta = temporality === AggregationTemporality.DELTA;
    const reported = new Map<HistogramCounts, Histogram>();
    let since = this.#startTime;
    const pointOf = (counts: HistogramCounts, endTime: HrTime): DataPoint<Histogram> => {
      const all = counts.toHistogram();
      const before = reported.get(counts);
      if (isDelta) reported.set(counts, all);
      const value = before === undefined ? all : difference(all, before);
      return { startTime: since, endTime, attributes: counts.attributes, value };
    };
    return {
      collect: async () => {
        const endTime = now();
        const metrics = this.#all.map(
          ({ options: { name, description, unit }, counts }): HistogramMetricData => ({
            descriptor: { name, description, unit, valueType: ValueType.DOUBLE },
            aggregationTemporality: temporality,
            dataPointType: DataPointType.HISTOGRAM,
            dataPoints: counts.map((one) => pointOf(one, endTime)),
          }),
        );
        if (isDelta) since = endTime;
        const filled = metrics.filter(({ dataPoints }) => dataPoints.length > 0);
        const scopeMetrics = [{ scope: { name: this.#scope }, metrics: filled }];
        return { resourceMetrics: { resource: processResource(), scopeMetrics }, errors: [] };
      },
    };
  }
}

/** The values that a histogram has counted with some attributes. */
export class HistogramCounts {
  readonly attributes: Attributes;
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #sum = 0;

  constructor(attributes: Attributes, bounds: readonly number[]) {
    this.attributes = attributes;
    this.#bounds = bounds;
    this.#counts = new Array<number>(bounds.length + 1).fill(0);
  }

  /** Counts a value. */
  record(value: number): void {
    let bucket = 0;
    while (bucket < this.#bounds.length && value > this.#bounds[bucket]!) bucket += 1;
    this.#counts[bucket]! += 1;
    this.#sum += value;
  }

  /** Returns all that was counted. */
  toHistogram(): Histogram {
    const counts = [...this.#counts];
    const count = counts.reduce((sum, one) => sum + one, 0);
    return { buckets: { boundaries: [...this.#bounds], counts }, sum: this.#sum, count };
  }
}

/** Returns what was counted after an earlier time. */
function difference(all: Histogram, before: Histogram): Histogram {
  const counts = all.buckets.counts.map((count, i) => count - before.buckets.counts[i]!);
  return {
    buckets: { boundaries: all.buckets.boundaries, counts },
    sum: (all.sum ?? 0) - (before.sum ?? 0),
    count: all.count - before.count,
  };
}

function now(): HrTime {
  const ms = Date.now();
  return [Math.floor(ms / 1000), (ms % 1000) * 1e6];
}
