import { availableParallelism } from "node:os";
import { extname } from "node:path";
import type { Piscina } from "piscina";
import type * as tasks from "./tasks.ts";

type Tasks = typeof tasks;

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

/**
 * Has a task done by one of the threads that all services and imports of this process share. Input and result are
 * copied, but for what is in shared buffers, or moved by the task.
 */
export async function runTask<Name extends keyof Tasks>(
  name: Name,
  input: Parameters<Tasks[Name]>[0],
): Promise<Awaited<ReturnType<Tasks[Name]>>> {
  const pool = await startThreads();
  return await pool.run(input, { name });
}

/** Starts the threads, which takes a while, ahead of the first task. */
export function startThreads(): Promise<Piscina> {
  pool ??= openPool(`tasks${extname(import.meta.url)}`, import.meta.url, {
    minThreads: threads,
    maxThreads: threads,
  });
  return pool;
}

/**
 * Makes a pool of threads that run the functions of a module. Threads without work do not keep the process
 * alive.
 *
 * @param module file name of the module, beside the one that `base` is the URL of
 */
export async function openPool(
  module: string,
  base: string,
  options: { minThreads: number; maxThreads: number; workerData?: unknown },
): Promise<Piscina> {
  const { Piscina } = await import("piscina");
  const filename = new URL(module, base).href;
  return new Piscina({ filename, recordTiming: false, resourceLimits: LIMITS, ...options });
}
