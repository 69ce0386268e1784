import { AggregationTemporality, type Histogram } from "@opentelemetry/sdk-metrics";
import { describe, expect, it } from "vitest";
import { Histograms } from "./histograms.ts";

const OPTIONS = { name: "took_seconds", description: "", unit: "s", bounds: [1, 2] };

describe("histograms", () => {
  it("count values in the bucket whose bound is not below them", async () => {
    const histograms = new Histograms("scope");
    const counts = histograms.create(OPTIONS)({ route: "one" });
    for (const value of [0.5, 1, 1.5, 2, 2.5]) counts.record(value);
    const producer = histograms.producer(AggregationTemporality.CUMULATIVE);
    const { resourceMetrics } = await producer.collect();
    const [{ scope, metrics }] = resourceMetrics.scopeMetrics as [
      (typeof resourceMetrics)["scopeMetrics"][0],
    ];
    expect([scope.name, metrics[0]!.descriptor.name]).toEqual(["scope", "took_seconds"]);
    expect(metrics[0]!.dataPoints).toEqual([
      expect.objectContaining({
        attributes: { route: "one" },
        value: { buckets: { boundaries: [1, 2], counts: [2, 2, 1] }, sum: 7.5, count: 5 },
      }),
    ]);
  });

  it("tell each reader all values, or those since it asked before", async () => {
    const histograms = new Histograms("scope");
    const newCounts = histograms.create(OPTIONS);
    const { CUMULATIVE, DELTA } = AggregationTemporality;
    const producers = [histograms.producer(CUMULATIVE), histograms.producer(DELTA)];
    const collect = () =>
      Promise.all(
        producers.map(async (producer) => {
          const { scopeMetrics } = (await producer.collect()).resourceMetrics;
          const points = scopeMetrics[0]!.metrics[0]?.dataPoints ?? [];
          return points.map(({ value }) => (value as Histogram).count);
        }),
      );
    expect(await collect()).toEqual([[], []]);
    const counts = newCounts({ route: "one" });
    counts.record(1);
    counts.record(2);
    expect(await collect()).toEqual([[2], [2]]);
    counts.record(3);
    newCounts({ route: "two" }).record(3);
    expect(await collect()).toEqual([
      [3, 1],
      [1, 1],
    ]);
  });
});
