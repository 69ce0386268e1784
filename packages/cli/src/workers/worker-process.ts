import type { Socket } from "node:net";
import { KEEP_ALIVE_MS } from "../server/accepting-server.ts";
import type { Listener, ListenerEvents, Transport } from "../server/listener.ts";
import type { ProcessMetrics } from "../telemetry/metrics.ts";
import type { FromWorker, ToWorker } from "./messages.ts";

/** The variable that makes a process a worker. */
export const WORKER_VARIABLE = "TVIX_STORE_WORKER";

/** Tells whether this process is a worker of another one. */
export function isWorker(): boolean {
  return process.env[WORKER_VARIABLE] !== undefined && process.send !== undefined;
}

/** This process, as a worker: the connections and orders that the first process sends. */
export class WorkerProcess {
  readonly #stop = new AbortController();
  readonly #terminate = new AbortController();
  readonly #collect: () => Promise<ProcessMetrics>;
  readonly #gathering = new Map<number, (metrics: readonly ProcessMetrics[]) => void>();
  #onConnection: ((socket: Socket, transport: Transport) => void) | undefined;
  #lastId = 0;

  /** @param collect returns the metrics of this process */
  constructor(collect: () => Promise<ProcessMetrics>) {
    this.#collect = collect;
    process.on("message", (message: ToWorker, socket: Socket | undefined) =>
      this.#take(message, socket),
    );
    process.once("disconnect", () => this.#end()); // the first process was killed
  }

  /** Aborted when the worker is to finish its calls. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** Aborted when the worker is to end at once. */
  get urgent(): AbortSignal {
    return this.#terminate.signal;
  }

  /** Takes connections from now on. */
  readonly listen = async (events: ListenerEvents): Promise<readonly Listener[]> => {
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    const open = new Set<Socket>();
    let isStopped = false;
    const settle = () => {
      if (isStopped && open.size === 0) resolve();
    };
    this.#onConnection = (socket, transport) => {
      if (isStopped) {
        socket.destroy();
        return;
      }
      socket.allowHalfOpen = true;
      socket.setNoDelay(true).setKeepAlive(true, KEEP_ALIVE_MS);
      open.add(socket);
      socket.once("close", () => {
        open.delete(socket);
        settle();
      });
      events.onConnection(socket, transport);
    };
    const stop = async () => {
      isStopped = true;
      settle();
    };
    return [{ address: "worker", isOpen: false, stop, ended }];
  };

  /** Tells the first process that this one takes connections. */
  ready(): void {
    this.#send({ kind: "ready" });
  }

  /** Returns the metrics of all workers. */
  async gather(): Promise<readonly ProcessMetrics[]> {
    const id = ++this.#lastId;
    const { promise, resolve } = Promise.withResolvers<readonly ProcessMetrics[]>();
    this.#gathering.set(id, resolve);
    this.#send({ kind: "gather", id });
    const metrics = await promise;
    this.#gathering.delete(id);
    return metrics;
  }

  #take(message: ToWorker, socket: Socket | undefined): void {
    switch (message.kind) {
      case "connection":
        // None comes where the client has gone meanwhile.
        if (socket !== undefined) this.#onConnection?.(socket, message.transport);
        break;
      case "stop":
        this.#stop.abort(new Error("stopped by the first process"));
        break;
      case "terminate":
        this.#end();
        break;
      case "collect": {
        const { id } = message;
        void this.#collect().then((metrics) => this.#send({ kind: "collected", id, metrics }));
        break;
      }
      case "gathered":
        this.#gathering.get(message.id)?.(message.metrics);
    }
  }

  #end(): void {
    this.#stop.abort(new Error("ended by the first process"));
    this.#terminate.abort(this.#stop.signal.reason);
  }

  #send(message: FromWorker): void {
    if (process.connected) process.send?.(message);
  }
}
