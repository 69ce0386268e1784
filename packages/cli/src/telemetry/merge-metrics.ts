import type { DataPoint, Histogram, MetricData, ScopeMetrics } from "@opentelemetry/sdk-metrics";

/** Gauges of what the processes share: the largest value counts, not the sum. */
const SHARED: ReadonlySet<string> = new Set([
  "tvix_build_info",
  "process_start_time_seconds",
  "tvix_store_size_bytes",
  "tvix_store_free_bytes",
]);

/** Adds up the metrics of several processes: values with the same name and attributes become one. */
export function mergeMetrics(all: readonly (readonly ScopeMetrics[])[]): ScopeMetrics[] {
  if (all.length === 1) return [...all[0]!];
  const [first] = all.flat();
  if (first === undefined) return [];
  const merged = new Map<string, { metric: MetricData; points: Map<string, DataPoint<unknown>> }>();
  for (const metric of all.flat().flatMap(({ metrics }) => metrics)) {
    const { name } = metric.descriptor;
    const found = merged.get(name) ?? { metric, points: new Map() };
    merged.set(name, found);
    for (const point of metric.dataPoints) {
      const key = JSON.stringify(Object.entries(point.attributes).sort());
      const other = found.points.get(key);
      const value = other === undefined ? point.value : join(name, other.value, point.value);
      found.points.set(key, { ...point, value });
    }
  }
  const metrics = Array.from(merged.values(), ({ metric, points }) => {
    return { ...metric, dataPoints: [...points.values()] } as MetricData;
  });
  return [{ scope: first.scope, metrics }];
}

function join(name: string, a: unknown, b: unknown): unknown {
  if (typeof a === "number" && typeof b === "number") {
    return SHARED.has(name) ? Math.max(a, b) : a + b;
  }
  const [x, y] = [a as Histogram, b as Histogram];
  return {
    buckets: {
      boundaries: x.buckets.boundaries,
      counts: x.buckets.counts.map((count, i) => count + y.buckets.counts[i]!),
    },
    count: x.count + y.count,
    sum: (x.sum ?? 0) + (y.sum ?? 0),
  };
}
