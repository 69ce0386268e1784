import type { Transport } from "../server/listener.ts";
import type { ProcessMetrics } from "../telemetry/metrics.ts";

/** What the first process tells a worker. A connection comes with its socket. */
export type ToWorker =
  | { readonly kind: "connection"; readonly transport: Transport }
  /** Take no more calls, wait for those in flight, and end. */
  | { readonly kind: "stop" }
  /** End at once. */
  | { readonly kind: "terminate" }
  /** Tell your metrics, as `collected`. */
  | { readonly kind: "collect"; readonly id: number }
  /** The metrics of all, which the worker has asked for. */
  | { readonly kind: "gathered"; readonly id: number; readonly metrics: readonly ProcessMetrics[] };

/** What a worker tells the first process. */
export type FromWorker =
  /** It takes connections. */
  | { readonly kind: "ready" }
  | { readonly kind: "collected"; readonly id: number; readonly metrics: ProcessMetrics }
  /** Collect the metrics of all, as `gathered`. */
  | { readonly kind: "gather"; readonly id: number };
