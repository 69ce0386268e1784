import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import { CastoreError, type ErrorCode } from "../model/errors.ts";

/** What a function that runs in a lane may do besides returning a result. */
export interface LaneContext {
  /** Has a buffer of the result moved to the thread that asked, not copied. */
  transfer(buffer: ArrayBuffer): void;
}

/** A function that a lane can run. Made by {@link taskOf}. */
export interface Task<Run extends (input: never, context: LaneContext) => unknown> {
  /** URL of the module that exports the function. */
  readonly filename: string;
  /** Its name there. */
  readonly name: string;
  /** Carries the type of the function; never set. */
  readonly run?: Run;
}

/** A request to a lane. */
export interface LaneRequest {
  readonly id: number;
  readonly filename: string;
  readonly name: string;
  readonly input: unknown;
}

/** What a lane says: once that it is ready, then one result or failure for each request. */
export type LaneReply =
  | { readonly isReady: true }
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly failure: { code?: string; message: string } };

/** A task that a lane was given. */
interface Running {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Heap limits of a lane in MB. Contents are in buffers outside of the heap, and little garbage is short-lived; without
 * limits, V8 would let 30 MB more of it lie about than a lane needs.
 */
const LIMITS = { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 48 };

/**
 * Names a function that a lane can run.
 *
 * @param base `import.meta.url` of the module that calls this
 * @param module name of the module that exports the function, beside `base`, without its extension
 * @param name name of the function
 */
export function taskOf<Run extends (input: never, context: LaneContext) => unknown>(
  base: string,
  module: string,
  name: string,
): Task<Run> {
  return { filename: moduleBeside(base, module).href, name };
}

/**
 * A thread that runs tasks. It starts with the first of them, and does not keep the process alive while it has nothing
 * to do. Input and result are copied, but for shared buffers and what a task transfers.
 */
export class Lane implements AsyncDisposable {
  readonly #onRoom: ((lane: Lane) => void) | undefined;
  #worker: Worker | undefined;
  #isReady = false;
  readonly #running = new Map<number, Running>();
  #lastId = 0;

  /** @param onRoom called when the thread has started, and whenever a task of it has ended. Default: none */
  constructor(onRoom?: (lane: Lane) => void) {
    this.#onRoom = onRoom;
  }

  /** How many tasks it has that have not ended. */
  get load(): number {
    return this.#running.size;
  }

  get isStarted(): boolean {
    return this.#worker !== undefined;
  }

  /** Whether the thread has started so far that it runs tasks at once. */
  get isReady(): boolean {
    return this.#isReady;
  }

  /** Starts the thread ahead of the first task. */
  start(): void {
    this.#worker ??= this.#open();
  }

  /**
   * Runs a task.
   *
   * @param moved buffers of the input that are moved to the thread, not copied. Default: none
   * @throws CastoreError as the task; Error for any other failure, of the thread included
   */
  run<Run extends (input: never, context: LaneContext) => unknown>(
    { filename, name }: Task<Run>,
    input: Parameters<Run>[0],
    moved: readonly ArrayBuffer[] = [],
  ): Promise<Awaited<ReturnType<Run>>> {
    return new Promise((resolve, reject) => {
      this.#worker ??= this.#open();
      const id = ++this.#lastId;
      if (this.#running.size === 0) this.#worker.ref();
      this.#running.set(id, { resolve: resolve as Running["resolve"], reject });
      this.#worker.postMessage({ id, filename, name, input } satisfies LaneRequest, moved);
    });
  }

  /** Ends the thread. Called when it has nothing to do. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker?.terminate();
  }

  #open(): Worker {
    const worker = new Worker(moduleBeside(import.meta.url, "lane-thread"), {
      resourceLimits: LIMITS,
    });
    let failure: unknown;
    worker.on("message", (reply: LaneReply) => this.#receive(worker, reply));
    worker.on("error", (error) => {
      failure = error;
    });
    worker.on("exit", () => {
      this.#worker = undefined; // the next task starts another
      this.#isReady = false;
      const error = failure ?? new Error("a thread ended in the middle of its work");
      for (const { reject } of this.#running.values()) reject(error);
      this.#running.clear();
      this.#onRoom?.(this);
    });
    worker.unref();
    return worker;
  }

  #receive(worker: Worker, reply: LaneReply): void {
    if ("isReady" in reply) {
      this.#isReady = true;
      this.#onRoom?.(this);
      return;
    }
    const task = this.#running.get(reply.id);
    if (task === undefined) return;
    this.#running.delete(reply.id);
    if (this.#running.size === 0) worker.unref();
    if ("result" in reply) task.resolve(reply.result);
    else task.reject(errorOf(reply.failure));
    this.#onRoom?.(this);
  }
}

function errorOf({ code, message }: { code?: string; message: string }): Error {
  return code === undefined ? new Error(message) : new CastoreError(code as ErrorCode, message);
}

function moduleBeside(base: string, module: string): URL {
  return new URL(`${module}${extname(base)}`, base);
}
