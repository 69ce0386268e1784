import type { Attributes } from "@opentelemetry/api";
import type { HistogramCounts } from "./histograms.ts";
import type { Metrics } from "./metrics.ts";

/** Bounds of buckets of durations, in seconds. */
const DURATION_BOUNDS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300,
];

/** How a request ended. */
export interface EndedRequest {
  /** What was asked for, one of a bounded number of names. */
  readonly kind: string;
  /** How it went, such as `ok` or `404`. */
  readonly code: string;
  readonly durationMs: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

/** Counts requests of one protocol, by kind and code. */
export class RequestMetrics {
  readonly #newDuration: (attributes: Attributes) => HistogramCounts;
  readonly #label: string;
  readonly #kinds = new Map<string, KindTotals>();

  /**
   * @param protocol prefix of the names, such as `rpc`
   * @param label name of the attribute that says what was asked for, such as `method`
   */
  constructor(
    { meter, histograms }: Pick<Metrics, "meter" | "histograms">,
    protocol: "rpc" | "http",
    label: string,
  ) {
    this.#label = label;
    this.#newDuration = histograms.create({
      name: `tvix_${protocol}_duration_seconds`,
      description: `How long ${protocol === "rpc" ? "calls" : "requests"} took, by what was asked for and how it went`,
      unit: "s",
      bounds: DURATION_BOUNDS,
    });
    // Observed when somebody asks: to count with an instrument takes longer than to answer a small request.
    const observe = (name: string, description: string, of: (totals: KindTotals) => number) =>
      meter
        .createObservableCounter(`tvix_${protocol}_${name}`, { description, unit: "By" })
        .addCallback((result) => {
          for (const totals of this.#kinds.values()) {
            const bytes = of(totals);
            if (bytes > 0) result.observe(bytes, totals.attributes);
          }
        });
    observe("received_bytes", "Bytes of bodies that clients sent", (totals) => totals.bytesIn);
    observe("sent_bytes", "Bytes of bodies that were sent to clients", (totals) => totals.bytesOut);
  }

  /** Counts a request that has ended. */
  record({ kind, code, durationMs, bytesIn, bytesOut }: EndedRequest): void {
    let totals = this.#kinds.get(kind);
    if (totals === undefined) {
      totals = { attributes: { [this.#label]: kind }, codes: new Map(), bytesIn: 0, bytesOut: 0 };
      this.#kinds.set(kind, totals);
    }
    totals.bytesIn += bytesIn;
    totals.bytesOut += bytesOut;
    let durations = totals.codes.get(code);
    if (durations === undefined) {
      durations = this.#newDuration({ ...totals.attributes, code });
      totals.codes.set(code, durations);
    }
    durations.record(durationMs / 1000);
  }
}

/** What is known of the requests of one kind. */
interface KindTotals {
  readonly attributes: Attributes;
  readonly codes: Map<string, HistogramCounts>;
  bytesIn: number;
  bytesOut: number;
}
