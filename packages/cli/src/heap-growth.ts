import { getHeapStatistics, setFlagsFromString } from "node:v8";

/** By how many percent of its live size the heap of V8 grows before it is collected: less costs more time than it saves memory. */
const LEAST_PERCENT = 50;
const MOST_PERCENT = 100;

/** By how many bytes the heap of a server grows before it is collected, within the limits above. */
const SERVER_GROWTH_BYTES = 20e6;

/**
 * How long after the call the limit is set, in milliseconds. While an option is not at its default, V8 does not take the compiled
 * modules that come with Node.js and compiles them anew, in each thread that starts: a quarter of the processor time of a small
 * import. By then, what a command needs has started. At 300 ms, V8 has often collected its heap once, and lets it grow to four
 * times its size before the next time: an import of many files takes 25 MB more.
 */
const DELAY_MS = 120;

let pending: NodeJS.Timeout | undefined;

/**
 * Has V8 let the heap of a command grow slowly: by default it grows to several times its live size, and a daemon would hold a
 * quarter more memory.
 */
export function limitHeapGrowth(): void {
  limitGrowthSoon(() => LEAST_PERCENT);
}

/**
 * Lets the heap of a server grow faster, as it has more garbage. To be called when its stores are open: the SDK of a bucket
 * doubles the live heap, which must not double the garbage.
 */
export function limitServerHeapGrowth(): void {
  limitGrowthSoon(() => {
    const percent = Math.round((100 * SERVER_GROWTH_BYTES) / getHeapStatistics().used_heap_size);
    return Math.min(MOST_PERCENT, Math.max(LEAST_PERCENT, percent));
  });
}

function limitGrowthSoon(percent: () => number): void {
  // V8 marks the code that is kept at the exit with its options: those that the next run begins with.
  if (pending === undefined) process.prependOnceListener("exit", () => setGrowthPercent(0));
  clearTimeout(pending);
  pending = setTimeout(() => setGrowthPercent(percent()), DELAY_MS);
  pending.unref();
}

function setGrowthPercent(percent: number): void {
  setFlagsFromString(`--heap-growing-percent=${percent}`);
}
