import type { Attributes, Counter, Histogram, Meter } from "@opentelemetry/api";

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
  readonly #duration: Histogram;
  readonly #received: Counter;
  readonly #sent: Counter;
  readonly #label: string;
  /** Attributes, kept: to make them takes longer than to count. */
  readonly #attributes = new Map<string, Attributes>();

  /**
   * @param protocol prefix of the names, such as `rpc`
   * @param label name of the attribute that says what was asked for, such as `method`
   */
  constructor(meter: Meter, protocol: "rpc" | "http", label: string) {
    this.#label = label;
    this.#duration = meter.createHistogram(`tvix_${protocol}_duration_seconds`, {
      description: `How long ${protocol === "rpc" ? "calls" : "requests"} took, by what was asked for and how it went`,
      unit: "s",
      advice: { explicitBucketBoundaries: DURATION_BOUNDS },
    });
    this.#received = meter.createCounter(`tvix_${protocol}_received_bytes`, {
      description: "Bytes of bodies that clients sent",
      unit: "By",
    });
    this.#sent = meter.createCounter(`tvix_${protocol}_sent_bytes`, {
      description: "Bytes of bodies that were sent to clients",
      unit: "By",
    });
  }

  /** Counts a request that has ended. */
  record({ kind, code, durationMs, bytesIn, bytesOut }: EndedRequest): void {
    const attributes = this.#attributesOf(kind);
    this.#duration.record(durationMs / 1000, this.#attributesOf(kind, code));
    if (bytesIn > 0) this.#received.add(bytesIn, attributes);
    if (bytesOut > 0) this.#sent.add(bytesOut, attributes);
  }

  #attributesOf(kind: string, code?: string): Attributes {
    const key = code === undefined ? kind : `${kind} ${code}`;
    let attributes = this.#attributes.get(key);
    if (attributes === undefined) {
      attributes = { [this.#label]: kind, ...(code !== undefined && { code }) };
      this.#attributes.set(key, attributes);
    }
    return attributes;
  }
}
