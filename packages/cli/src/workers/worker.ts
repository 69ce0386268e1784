import { type ChildProcess, fork } from "node:child_process";
import type { Socket } from "node:net";
import { commandArguments } from "../arguments.ts";
import type { Transport } from "../server/listener.ts";
import type { ProcessMetrics } from "../telemetry/metrics.ts";
import type { FromWorker, ToWorker } from "./messages.ts";
import { WORKER_VARIABLE } from "./worker-process.ts";

/** Options of a {@link Worker}. */
export interface WorkerOptions {
  /** Returns the metrics of all workers. */
  readonly onGather: () => Promise<readonly ProcessMetrics[]>;
}

/** Variables for this process alone. */
const OWN_VARIABLES = {
  LISTEN_PID: undefined,
  LISTEN_FDS: undefined,
  LISTEN_FDNAMES: undefined,
  NOTIFY_SOCKET: undefined,
  WATCHDOG_USEC: undefined,
  WATCHDOG_PID: undefined,
};

/** A process that serves the connections it is handed, with the arguments of this one. */
export class Worker {
  /** Resolves when it takes connections. */
  readonly ready: Promise<"ready">;
  /** Resolves with how it ended, such as `status 1` or `SIGKILL`. */
  readonly ended: Promise<string>;
  readonly #child: ChildProcess;
  readonly #collecting = new Map<number, (metrics: ProcessMetrics) => void>();
  #lastId = 0;

  constructor({ onGather }: WorkerOptions) {
    this.#child = fork(process.argv[1]!, commandArguments(), {
      env: { ...process.env, ...OWN_VARIABLES, [WORKER_VARIABLE]: "1" },
      serialization: "advanced",
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    const { promise: ready, resolve } = Promise.withResolvers<"ready">();
    this.ready = ready;
    this.ended = new Promise((resolve) => {
      this.#child.once("exit", (status, signal) => resolve(signal ?? `status ${status}`));
    });
    this.#child.on("message", (message: FromWorker) => {
      if (message.kind === "ready") resolve("ready");
      else if (message.kind === "collected") this.#collecting.get(message.id)?.(message.metrics);
      else {
        const { id } = message;
        void onGather().then((metrics) => this.send({ kind: "gathered", id, metrics }));
      }
    });
    this.#child.on("error", () => undefined); // it has ended, or will
  }

  /** Hands over a connection. Returns whether the worker still runs. */
  hand(socket: Socket, transport: Transport): boolean {
    if (!this.#child.connected) return false;
    const message: ToWorker = { kind: "connection", transport };
    this.#child.send(message, socket, () => undefined); // a worker that ends loses its connections
    return true;
  }

  send(message: ToWorker): void {
    if (this.#child.connected) this.#child.send(message);
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Returns its metrics. */
  async collect(signal: AbortSignal): Promise<ProcessMetrics> {
    const id = ++this.#lastId;
    const { promise, resolve, reject } = Promise.withResolvers<ProcessMetrics>();
    this.#collecting.set(id, resolve);
    const abandon = () => reject(signal.reason);
    signal.addEventListener("abort", abandon);
    this.send({ kind: "collect", id });
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", abandon);
      this.#collecting.delete(id);
    }
  }
}
