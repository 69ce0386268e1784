import type { Meter } from "@opentelemetry/api";
import type { Metrics } from "./metrics.ts";
import { RequestMetrics } from "./request-metrics.ts";

/** How much a server has to do at the moment. */
export interface ServerLoad {
  readonly connections: number;
  /** Calls and requests that have not ended. */
  readonly calls: number;
  readonly uploads: number;
  readonly uploadsWaiting: number;
  /** Memory that calls hold, in bytes, and how many wait for some. */
  readonly callBytes: number;
  readonly callsWaiting: number;
}

/** Counts the requests of a server. */
export class ServerMetrics {
  /** Calls, by method. */
  readonly calls: RequestMetrics;
  /** Other requests, by route. */
  readonly requests: RequestMetrics;
  readonly #meter: Meter;

  constructor(metrics: Pick<Metrics, "meter" | "histograms">) {
    this.#meter = metrics.meter;
    this.calls = new RequestMetrics(metrics, "rpc", "method");
    this.requests = new RequestMetrics(metrics, "http", "route");
  }

  /** Tells the load whenever metrics are read. */
  observe(load: () => ServerLoad): void {
    const gauge = (name: string, description: string, of: (load: ServerLoad) => number) =>
      this.#meter
        .createObservableGauge(name, { description })
        .addCallback((result) => result.observe(of(load())));
    gauge("tvix_connections", "Open connections", ({ connections }) => connections);
    gauge("tvix_calls_in_flight", "Calls and requests in progress", ({ calls }) => calls);
    gauge("tvix_uploads_in_progress", "Calls that upload", ({ uploads }) => uploads);
    gauge(
      "tvix_uploads_waiting",
      "Uploads that wait for their turn",
      (load) => load.uploadsWaiting,
    );
    gauge("tvix_call_memory_bytes", "Memory that calls hold", ({ callBytes }) => callBytes);
    gauge("tvix_calls_waiting", "Calls that wait for memory", (load) => load.callsWaiting);
  }
}
