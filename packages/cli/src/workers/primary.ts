import type { Socket } from "node:net";
import { CastoreError } from "@tvix/castore";
import type { Logger } from "pino";
import type { Listener, Transport } from "../server/listener.ts";
import type { ProcessMetrics } from "../telemetry/metrics.ts";
import { Worker } from "./worker.ts";

/** Options of {@link Primary.start}. */
export interface PrimaryOptions {
  /** How many workers to run. */
  readonly count: number;
  readonly logger: Logger;
}

/** Pause before a worker that has ended is started again, in milliseconds: at first, and at most. */
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 30_000;

/** A worker that has run so long did not end because of its start, in milliseconds. */
const STABLE_MS = 60_000;

/** Time limit for workers that were told to end at once, in milliseconds. */
const TERMINATE_MS = 2_000;

/** Time limit for the metrics of one worker, in milliseconds. */
const COLLECT_MS = 5_000;

/** Accepts connections, and hands them to workers in turn. Starts those again that end. */
export class Primary implements AsyncDisposable {
  readonly exhausted: Promise<void> = new Promise(() => undefined);
  readonly #logger: Logger;
  /** By place; `undefined` while one is not ready. */
  readonly #workers: (Worker | undefined)[];
  readonly #all = new Set<Worker>();
  readonly #pauses = new Set<NodeJS.Timeout>();
  #listeners: readonly Listener[] = [];
  #next = 0;
  #stopping = false;

  private constructor({ count, logger }: PrimaryOptions) {
    this.#logger = logger;
    this.#workers = Array.from({ length: count });
  }

  /**
   * Starts workers. Resolves when all of them take connections.
   *
   * @throws CastoreError `internal` if one of them ends before that, having told why
   */
  static async start(options: PrimaryOptions, signal: AbortSignal): Promise<Primary> {
    const primary = new Primary(options);
    try {
      await primary.#start(0, signal); // what is wrong is told once
      const others = Array.from({ length: options.count - 1 }, (_, i) => i + 1);
      await Promise.all(others.map((place) => primary.#start(place, signal)));
      signal.throwIfAborted();
      return primary;
    } catch (error) {
      await primary.terminate();
      throw error;
    }
  }

  /** Takes connections from listeners, from now on. */
  use(listeners: readonly Listener[]): void {
    this.#listeners = listeners;
  }

  /** Hands a connection to the next worker. Ends it if there is none. */
  readonly hand = (socket: Socket, transport: Transport): void => {
    socket.on("error", () => undefined); // the client has gone
    for (let tries = 0; tries < this.#workers.length; tries++) {
      const worker = this.#workers[this.#next++ % this.#workers.length];
      if (worker?.hand(socket, transport)) return;
    }
    socket.destroy();
  };

  /** Returns the metrics of all workers that answer in time. */
  async collect(): Promise<ProcessMetrics[]> {
    const asked = [...this.#all].map((worker) => worker.collect(AbortSignal.timeout(COLLECT_MS)));
    const answers = await Promise.allSettled(asked);
    return answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []));
  }

  /** Has the workers read files again, as SIGHUP does. */
  reload(): void {
    for (const worker of this.#all) worker.signal("SIGHUP");
  }

  /** Accepts no more connections, and resolves when the workers have finished their calls and ended. */
  async shutdown(): Promise<void> {
    await this.#stop();
    for (const worker of this.#all) worker.send({ kind: "stop" });
    await Promise.all([...this.#all].map((worker) => worker.ended));
  }

  /** Ends the workers at once. */
  async terminate(): Promise<void> {
    await this.#stop();
    for (const worker of this.#all) worker.send({ kind: "terminate" });
    const kill = setTimeout(() => {
      for (const worker of this.#all) worker.signal("SIGKILL");
    }, TERMINATE_MS);
    await Promise.all([...this.#all].map((worker) => worker.ended));
    clearTimeout(kill);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.terminate();
  }

  async #stop(): Promise<void> {
    this.#stopping = true;
    for (const pause of this.#pauses) clearTimeout(pause);
    await Promise.all(this.#listeners.map((listener) => listener.stop()));
  }

  /** Starts the worker of a place. Rejects if it ends before it is ready. */
  async #start(
    place: number,
    signal?: AbortSignal,
    pauseMs: number = FIRST_PAUSE_MS,
  ): Promise<void> {
    const startedMs = performance.now();
    const worker = new Worker({ onGather: () => this.collect() });
    this.#all.add(worker);
    const stop = () => worker.send({ kind: "terminate" });
    signal?.addEventListener("abort", stop);
    const ended = worker.ended.then((how) => {
      this.#all.delete(worker);
      signal?.removeEventListener("abort", stop);
      const wasReady = this.#workers[place] === worker;
      if (wasReady) this.#workers[place] = undefined;
      if (!this.#stopping && (wasReady || signal === undefined)) {
        const isStable = performance.now() - startedMs > STABLE_MS;
        this.#restart(place, how, isStable ? FIRST_PAUSE_MS : pauseMs);
      }
      return how;
    });
    const how = await Promise.race([worker.ready, ended]);
    signal?.throwIfAborted();
    if (how === "ready") this.#workers[place] = worker;
    else if (signal !== undefined) {
      throw new CastoreError("internal", `Cannot start worker ${place + 1}: it ended with ${how}`);
    }
  }

  #restart(place: number, how: string, pauseMs: number): void {
    this.#logger.error(
      { worker: place + 1, pauseMs },
      `a worker ended with ${how}: its calls are lost, and another one is started`,
    );
    const pause = setTimeout(() => {
      this.#pauses.delete(pause);
      void this.#start(place, undefined, Math.min(pauseMs * 2, LONGEST_PAUSE_MS));
    }, pauseMs);
    this.#pauses.add(pause);
  }
}
