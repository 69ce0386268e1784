import type { FileSystem } from "./file-system.ts";
import type { Answer, Need, Supplies } from "./need.ts";
import type { Fetched } from "./outcome.ts";
import { ERRNO } from "./protocol/constants.ts";
import { writeOutHeader } from "./protocol/reply.ts";
import { decodeRequest, type Request } from "./protocol/request.ts";

/** What a {@link Dispatcher} works on. */
export interface DispatcherOptions {
  readonly fileSystem: FileSystem;
  /** Sends an answer to the kernel: its parts, one after the other. Some are valid only until it returns. */
  readonly send: (parts: readonly Uint8Array[]) => void;
  /** Starts to fetch; {@link Dispatcher.answer} is called once for each need. */
  readonly ask: (needs: readonly Need[]) => void;
  /** Ends fetching what nobody waits for any more, by the keys of needs. They are not answered then. */
  readonly cancel: (keys: readonly string[]) => void;
  /** Limit of what is fetched before anybody asks for it, in bytes. */
  readonly aheadBytes: number;
}

/** A request that waits for what it needs. */
interface Waiting {
  readonly request: Request;
  readonly missing: Set<string>;
  readonly fetched: Map<string, Supplies[Need["type"]]>;
}

/** A need that is being fetched. */
interface Flight {
  readonly need: Need;
  readonly waiting: Set<Waiting>;
  /** How many bytes it counts for what is fetched ahead; 0 for what was asked for. */
  ahead: number;
}

/**
 * Takes messages of the kernel, answers them by a file system, and lets those wait that need something from the stores.
 * What several need is fetched once.
 */
export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #header = Buffer.alloc(16);
  readonly #flights = new Map<string, Flight>();
  readonly #waiting = new Map<bigint, Waiting>();
  #bytesAhead = 0;

  constructor(options: DispatcherOptions) {
    this.#options = options;
  }

  /** How many requests wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Takes a message, which is not changed before it returns. Whatever the message is, it does not throw. */
  receive(message: Buffer): void {
    const request = decodeRequest(message);
    if (request.type === "malformed") {
      if (request.unique !== undefined) this.#fail(request.unique, ERRNO.EINVAL);
    } else if (request.type === "interrupt") {
      this.#interrupt(request.interrupted);
    } else {
      this.#handle(request);
    }
  }

  /** Ends the wait of a request, which is not answered then. */
  abandon(unique: bigint): void {
    const waiting = this.#waiting.get(unique);
    if (waiting !== undefined) this.#leave(waiting);
  }

  /** Takes what was fetched, or why it was not. */
  answer(answer: Answer): void {
    const flight = this.#flights.get(answer.key);
    if (flight === undefined) return; // nobody waited any more
    const { need, waiting } = flight;
    if ("errno" in answer) {
      this.#land(flight);
      for (const request of waiting) {
        this.#leave(request);
        this.#fail(request.request.unique, answer.errno);
      }
      return;
    }
    const kept = this.#options.fileSystem.keep(need, answer.supply);
    this.#land(flight);
    for (const request of waiting) {
      request.missing.delete(answer.key);
      const isLast = request.missing.size === 0;
      // Contents are valid until others come, or another request is handled.
      const isBrief = !isLast || waiting.size > 1;
      request.fetched.set(answer.key, isBrief ? lasting(kept) : kept);
      if (!isLast) continue;
      this.#waiting.delete(request.request.unique);
      this.#handle(request.request, request.fetched);
    }
  }

  #handle(request: Request, fetched?: Map<string, Supplies[Need["type"]]>): void {
    const outcome = this.#options.fileSystem.handle(request, fetched as Fetched | undefined);
    switch (outcome.type) {
      case "reply":
        this.#send(request.unique, outcome.parts);
        break;
      case "error":
        this.#fail(request.unique, outcome.errno);
        break;
      case "wait":
        this.#wait(request, outcome.needs, fetched);
        break;
      case "silence":
    }
    this.#fetchAhead();
  }

  #wait(request: Request, needs: readonly Need[], fetched: Waiting["fetched"] = new Map()): void {
    const keys = needs.map(({ key }) => key);
    for (const [key, supply] of fetched) fetched.set(key, lasting(supply)); // others are kept meanwhile
    const waiting = { request: detached(request), missing: new Set(keys), fetched };
    this.#waiting.set(request.unique, waiting);
    const asked: Need[] = [];
    for (const need of needs) {
      const flight = this.#flights.get(need.key) ?? this.#start(need, asked);
      flight.waiting.add(waiting);
    }
    if (asked.length > 0) this.#options.ask(asked);
  }

  #fetchAhead(): void {
    const asked: Need[] = [];
    for (const need of this.#options.fileSystem.takeAhead()) {
      if (this.#bytesAhead >= this.#options.aheadBytes) break;
      if (this.#flights.has(need.key)) continue;
      const flight = this.#start(need, asked);
      flight.ahead = bytesOf(need);
      this.#bytesAhead += flight.ahead;
    }
    if (asked.length > 0) this.#options.ask(asked);
  }

  #start(need: Need, asked: Need[]): Flight {
    const flight = { need, waiting: new Set<Waiting>(), ahead: 0 };
    this.#flights.set(need.key, flight);
    asked.push(need);
    return flight;
  }

  #land(flight: Flight): void {
    this.#flights.delete(flight.need.key);
    this.#bytesAhead -= flight.ahead;
  }

  /** Ends the wait of a request, and fetching what nobody else waits for. */
  #leave(waiting: Waiting): void {
    this.#waiting.delete(waiting.request.unique);
    const abandoned: string[] = [];
    for (const key of waiting.missing) {
      const flight = this.#flights.get(key);
      if (!flight?.waiting.delete(waiting) || flight.waiting.size > 0) continue;
      this.#land(flight);
      abandoned.push(key);
    }
    if (abandoned.length > 0) this.#options.cancel(abandoned);
  }

  #interrupt(unique: bigint): void {
    if (!this.#waiting.has(unique)) return; // it was answered meanwhile
    this.abandon(unique);
    this.#fail(unique, ERRNO.EINTR);
  }

  #send(unique: bigint, parts: readonly Uint8Array[]): void {
    const body = parts.reduce((length, part) => length + part.length, 0);
    writeOutHeader(this.#header, unique, { body });
    this.#options.send([this.#header, ...parts]);
  }

  #fail(unique: bigint, errno: number): void {
    writeOutHeader(this.#header, unique, { errno });
    this.#options.send([this.#header]);
  }
}

/** Returns a request that is no part of the message it was decoded from. */
function detached(request: Request): Request {
  return "name" in request ? { ...request, name: Buffer.from(request.name) } : request;
}

/** Returns contents in memory of their own, anything else as it is. */
function lasting(supply: Supplies[Need["type"]]): Supplies[Need["type"]] {
  if (supply === undefined || !("form" in supply)) return supply;
  return { bytes: new Uint8Array(supply.bytes), form: supply.form }; // `slice` of a Buffer copies nothing
}

function bytesOf(need: Need): number {
  if (need.type === "chunk") return need.length;
  return need.type === "file" ? need.size : 0;
}
