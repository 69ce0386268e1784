import { getHeapStatistics, setFlagsFromString } from "node:v8";

/** By how many percent of its live size the heap of V8 grows before it is collected: less costs more time than it saves memory. */
const LEAST_PERCENT = 50;
const MOST_PERCENT = 100;

/** By how many bytes the heap of a server grows before it is collected, within the limits above. */
const SERVER_GROWTH_BYTES = 20e6;

/**
 * Has V8 let the heap of a command grow slowly: by default it grows to several times its live size, and a daemon would hold a
 * quarter more memory. Set at run time, as Node.js starts a quarter slower with it as an option: V8 does not take the compiled
 * modules of Node.js then.
 */
export function limitHeapGrowth(): void {
  setFlagsFromString(`--heap-growing-percent=${LEAST_PERCENT}`);
}

/**
 * Lets the heap of a server grow faster, as it has more garbage. To be called when its stores are open: the SDK of a bucket
 * doubles the live heap, which must not double the garbage.
 */
export function limitServerHeapGrowth(): void {
  const percent = Math.round((100 * SERVER_GROWTH_BYTES) / getHeapStatistics().used_heap_size);
  const within = Math.min(MOST_PERCENT, Math.max(LEAST_PERCENT, percent));
  setFlagsFromString(`--heap-growing-percent=${within}`);
}
