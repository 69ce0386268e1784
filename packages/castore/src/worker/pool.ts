import { availableParallelism } from "node:os";
import { extname } from "node:path";
import type { Piscina } from "piscina";
import type * as tasks from "./tasks.ts";

type Tasks = typeof tasks;

/** How long a thread without work lives on. Meanwhile it does not keep the process alive. */
const IDLE_TIMEOUT_MS = 10_000;

let pool: Promise<Piscina> | undefined;

/**
 * Has a task done by one of the threads that all services and imports of this process share, one for
 * each core. Its result is copied, but for what the task moves.
 *
 * @param transfer buffers in `input` that are moved to the thread: nobody else uses them from here on
 */
export async function runTask<Name extends keyof Tasks>(
  name: Name,
  input: Parameters<Tasks[Name]>[0],
  transfer: readonly ArrayBuffer[] = [],
): Promise<Awaited<ReturnType<Tasks[Name]>>> {
  pool ??= openPool(`tasks${extname(import.meta.url)}`, import.meta.url, {
    maxThreads: availableParallelism(),
    idleTimeout: IDLE_TIMEOUT_MS,
  });
  return await (await pool).run(input, { name, transferList: [...transfer] });
}

/**
 * Makes a pool of threads that run the functions of a module, loaded only now.
 *
 * @param module file name of the module, beside the one that `base` is the URL of
 */
export async function openPool(
  module: string,
  base: string,
  options: { maxThreads: number; idleTimeout?: number; workerData?: unknown },
): Promise<Piscina> {
  const { Piscina } = await import("piscina");
  const filename = new URL(module, base).href;
  return new Piscina({ filename, minThreads: 1, recordTiming: false, ...options });
}
