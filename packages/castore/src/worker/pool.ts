import { availableParallelism } from "node:os";
import { extname } from "node:path";
import type { Piscina } from "piscina";

/**
 * Threads hold some megabytes, as contents are in buffers outside of the heap, and make little garbage that is
 * short-lived. Without limits, each would let 30 MB more of it lie about than it needs to.
 */
const LIMITS = { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 48 };

let threads = availableParallelism();
let pool: Promise<Piscina> | undefined;

/**
 * Says how many threads all services and imports of this process share, at least one. To be called before any of them
 * is used. Default: one for each core, of which each takes ten megabytes, and some more at work.
 */
export function useThreads(count: number): void {
  threads = Math.max(count, 1);
}

/** A function that a thread can run. Made by {@link taskOf}. */
export interface Task<Run extends (input: never) => unknown> {
  /** URL of the module that exports the function. */
  readonly filename: string;
  /** Its name there. */
  readonly name: string;
  /** Carries the type of the function; never set. */
  readonly run?: Run;
}

/**
 * Names a function that a thread can run.
 *
 * @param base `import.meta.url` of the module that calls this
 * @param module name of the module that exports the function, beside `base`, without its extension
 * @param name name of the function
 */
export function taskOf<Run extends (input: never) => unknown>(
  base: string,
  module: string,
  name: string,
): Task<Run> {
  return { filename: moduleBeside(base, module), name };
}

/**
 * Runs a task in one of the threads that all services and imports of this process share. Input and result are
 * copied, but for what is in shared buffers, or moved by the task.
 */
export async function runTask<Run extends (input: never) => unknown>(
  { filename, name }: Task<Run>,
  input: Parameters<Run>[0],
): Promise<Awaited<ReturnType<Run>>> {
  const pool = await startThreads();
  return await pool.run(input, { filename, name });
}

/** Starts the threads, which takes a while, ahead of the first task. */
export function startThreads(): Promise<Piscina> {
  pool ??= newPool({ minThreads: threads, maxThreads: threads });
  return pool;
}

/**
 * Opens a pool of threads that run the functions of one module. Threads without work do not keep the process
 * alive.
 *
 * @param base `import.meta.url` of the module that calls this
 * @param module name of the module to run, beside `base`, without its extension
 */
export function openPool(
  base: string,
  module: string,
  options: { minThreads: number; maxThreads: number; workerData?: unknown },
): Promise<Piscina> {
  return newPool({ filename: moduleBeside(base, module), ...options });
}

async function newPool(options: {
  filename?: string;
  minThreads: number;
  maxThreads: number;
  workerData?: unknown;
}): Promise<Piscina> {
  const { Piscina } = await import("piscina");
  return new Piscina({ recordTiming: false, resourceLimits: LIMITS, ...options });
}

function moduleBeside(base: string, module: string): string {
  return new URL(`${module}${extname(base)}`, base).href;
}
