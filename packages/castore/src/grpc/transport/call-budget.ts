import { Code } from "@connectrpc/connect";
import { ByteBudget } from "../../bytes/byte-budget.ts";
import { RpcError } from "./rpc-error.ts";

/** Options of a {@link CallBudget}. */
export interface CallBudgetOptions {
  /** How many bytes all calls may hold together. Default: 16 MiB. */
  maxBytes?: number;
  /** How long a call waits for room before it is refused, in milliseconds. Default: 120,000. */
  waitMs?: number;
  /** While calls wait, one is ended that holds bytes and whose client does nothing for so long. Default: 10,000. */
  stallMs?: number;
}

/** A call that holds bytes. */
export interface BudgetedCall {
  /** Counts what the client has sent and taken so far; `undefined` while the call does not wait for its client. */
  progress(): number | undefined;
  /** Ends the call, because its client does nothing while others wait. */
  endStalled(): void;
}

/**
 * Bounds the memory of all calls of a server together. A call takes bytes before it holds them, and waits its turn
 * where there are none. Whoever waits too long is refused with `resource_exhausted`, and clients that keep bytes
 * without taking or sending any lose their calls while others wait.
 */
export class CallBudget {
  readonly #bytes: ByteBudget;
  readonly #waitMs: number;
  readonly #stallMs: number;
  /** The calls that hold bytes: how far each was, and since when. */
  readonly #holders = new Map<BudgetedCall, { progress: number | undefined; sinceMs: number }>();
  #waiting = 0;
  #watch: NodeJS.Timeout | undefined;

  constructor({
    maxBytes = 16 * 1024 * 1024,
    waitMs = 120_000,
    stallMs = 10_000,
  }: CallBudgetOptions = {}) {
    this.#bytes = new ByteBudget(maxBytes);
    this.#waitMs = waitMs;
    this.#stallMs = stallMs;
  }

  /** Opens the account of a call, which holds nothing yet. */
  open(call: BudgetedCall): CallShare {
    return new CallShare(
      (bytes, signal) => this.#take(call, bytes, signal),
      (bytes) => {
        this.#holders.delete(call);
        this.#bytes.release(bytes);
      },
    );
  }

  /** Returns how many bytes calls hold, and how many calls wait for some. */
  load(): { readonly bytes: number; readonly waiting: number } {
    return { bytes: this.#bytes.taken, waiting: this.#waiting };
  }

  async #take(call: BudgetedCall, bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (!this.#bytes.tryTake(bytes)) await this.#waitFor(bytes, signal);
    this.#holders.set(call, { progress: call.progress(), sinceMs: performance.now() });
  }

  async #waitFor(bytes: number, signal: AbortSignal): Promise<void> {
    const timeout = new AbortController();
    const busy = `the server is busy: there was no room for ${bytes} bytes within ${this.#waitMs} ms; try again later`;
    const timer = setTimeout(
      () => timeout.abort(new RpcError(Code.ResourceExhausted, busy)),
      this.#waitMs,
    );
    this.#waiting += 1;
    // A third of the time, so that nobody lasts much longer than it.
    this.#watch ??= setInterval(() => this.#endStalled(), this.#stallMs / 3).unref();
    try {
      await this.#bytes.take(bytes, { signal: AbortSignal.any([signal, timeout.signal]) });
    } finally {
      clearTimeout(timer);
      this.#waiting -= 1;
      if (this.#waiting === 0) {
        clearInterval(this.#watch);
        this.#watch = undefined;
      }
    }
  }

  #endStalled(): void {
    const nowMs = performance.now();
    for (const [call, seen] of this.#holders) {
      const progress = call.progress();
      if (progress === undefined || progress !== seen.progress) {
        this.#holders.set(call, { progress, sinceMs: nowMs });
      } else if (nowMs - seen.sinceMs >= this.#stallMs) {
        call.endStalled();
      }
    }
  }
}

/** What a call holds of a {@link CallBudget}. */
export class CallShare {
  readonly #take: (bytes: number, signal: AbortSignal) => Promise<void>;
  readonly #release: (bytes: number) => void;
  #bytes = 0;
  #isReleased = false;

  constructor(
    take: (bytes: number, signal: AbortSignal) => Promise<void>,
    release: (bytes: number) => void,
  ) {
    this.#take = take;
    this.#release = release;
  }

  /**
   * Makes the share at least so large. One call at a time.
   *
   * @param signal ends the waiting
   * @throws RpcError `resource_exhausted` after waiting too long; `signal.reason`
   */
  async reserve(bytes: number, signal: AbortSignal): Promise<void> {
    if (bytes <= this.#bytes) return;
    // Holds nothing while it waits: calls that wait for what the others hold, or they themselves, would wait for ever.
    this.#giveBack();
    await this.#take(bytes, signal);
    this.#bytes = bytes;
    if (this.#isReleased) this.#giveBack();
  }

  /** Gives everything back. Nothing is kept from then on. */
  release(): void {
    this.#isReleased = true;
    this.#giveBack();
  }

  #giveBack(): void {
    const bytes = this.#bytes;
    this.#bytes = 0;
    if (bytes > 0) this.#release(bytes);
  }
}
