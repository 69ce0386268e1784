import { readdir } from "node:fs/promises";
import type { Meter } from "@opentelemetry/api";
import { laneLoad } from "@tvix/castore";
import manifest from "../../package.json" with { type: "json" };

/** How often the delay of the event loop is measured, in milliseconds. */
const SAMPLE_MS = 100;

const DELAY_BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

/** Takes metrics of the process: processors, memory, files, the event loop and the lanes. Disposing stops the sampling. */
export function observeProcess(meter: Meter): Disposable {
  meter
    .createObservableGauge("tvix_build_info", { description: "1, with the version as a label" })
    .addCallback((result) =>
      result.observe(1, { version: manifest.version, node: process.version }),
    );
  meter
    .createObservableCounter("process_cpu_seconds", {
      description: "Processor time of all threads",
      unit: "s",
    })
    .addCallback((result) => {
      const { user, system } = process.cpuUsage();
      result.observe((user + system) / 1e6);
    });
  meter
    .createObservableGauge("process_resident_memory_bytes", {
      description: "Memory in RAM",
      unit: "By",
    })
    .addCallback((result) => result.observe(process.memoryUsage.rss()));
  meter
    .createObservableGauge("nodejs_heap_used_bytes", {
      description: "Live and dead objects in the heap of the main thread",
      unit: "By",
    })
    .addCallback((result) => result.observe(process.memoryUsage().heapUsed));
  meter
    .createObservableGauge("process_start_time_seconds", {
      description: "When the process started, since 1970",
      unit: "s",
    })
    .addCallback((result) => result.observe(performance.timeOrigin / 1000));
  meter
    .createObservableGauge("process_open_fds", { description: "Open files, connections included" })
    .addCallback(async (result) => {
      const files = await readdir("/proc/self/fd").catch(() => undefined);
      if (files !== undefined) result.observe(files.length);
    });
  meter
    .createObservableGauge("tvix_lane_tasks", {
      description: "Batches that threads work on, or that wait for one",
    })
    .addCallback((result) => {
      const { running, waiting } = laneLoad();
      result.observe(running, { state: "running" });
      result.observe(waiting, { state: "waiting" });
    });
  return sampleEventLoop(meter);
}

/** Measures, at regular times, how much later than it should the event loop comes to something. */
function sampleEventLoop(meter: Meter): Disposable {
  const delay = meter.createHistogram("nodejs_eventloop_delay_seconds", {
    description: "How much later than it should the event loop came to a timer, ten times a second",
    unit: "s",
    advice: { explicitBucketBoundaries: DELAY_BOUNDS },
  });
  let dueMs = performance.now() + SAMPLE_MS;
  const timer = setInterval(() => {
    const nowMs = performance.now();
    delay.record(Math.max(nowMs - dueMs, 0) / 1000);
    dueMs = nowMs + SAMPLE_MS;
  }, SAMPLE_MS).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
