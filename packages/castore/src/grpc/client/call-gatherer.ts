import type { AbortOptions } from "../../bytes/abort-options.ts";
import { type ErrorCode, hasCode } from "../../model/errors.ts";
import { MAX_BATCH_BLOBS } from "../../model/limits.ts";

/** Options of a {@link CallGatherer}. */
export interface CallGathererOptions<Item, Result> {
  /** Makes a call for all items, and gives the result for each, in order. */
  readonly call: (items: readonly Item[], options: AbortOptions) => Promise<readonly Result[]>;
  /** About how many bytes of a call an item takes, or of its answer. */
  readonly bytesOf: (item: Item) => number;
}

/** How many calls are under way at the same time: while the server works on one, the next is gathered and sent. */
const CONCURRENCY = 2;

/** How many bytes go into one call. */
const BATCH_BYTES = 1024 * 1024;

/** Codes of errors that a single item may cause, or the size of all together. */
const OF_ITEMS: readonly ErrorCode[] = [
  "invalid_argument",
  "not_found",
  "data_loss",
  "resource_exhausted",
];

/** An item, with the promise of its result. */
interface Waiting<Item, Result> extends PromiseWithResolvers<Result> {
  readonly item: Item;
  /** Set once it is sent. */
  call: Call | undefined;
  /** Whether nobody waits for it any more. */
  isDropped: boolean;
}

/** A call under way, and how many wait for it. */
interface Call {
  readonly cancelling: AbortController;
  waiting: number;
}

/**
 * Gathers requests for single items into few calls. A request does not wait for further ones: a call takes all that came
 * while others were under way.
 */
export class CallGatherer<Item, Result> {
  readonly #options: CallGathererOptions<Item, Result>;
  #waiting: Waiting<Item, Result>[] = [];
  #calls = 0;
  #isScheduled = false;

  constructor(options: CallGathererOptions<Item, Result>) {
    this.#options = options;
  }

  /** Asks for one item, which is left alone until the result is there. Rejects as the call does, or would for it alone. */
  async ask(item: Item, { signal }: AbortOptions = {}): Promise<Result> {
    signal?.throwIfAborted();
    const resolvers = Promise.withResolvers<Result>();
    const waiting = { item, call: undefined, isDropped: false, ...resolvers };
    const onAbort = () => this.#drop(waiting, signal!.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#waiting.push(waiting);
    this.#schedule();
    try {
      return await waiting.promise;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  #drop(waiting: Waiting<Item, Result>, reason: unknown): void {
    waiting.isDropped = true;
    waiting.reject(reason);
    const { call } = waiting;
    if (call === undefined) this.#waiting = this.#waiting.filter((one) => one !== waiting);
    else if (--call.waiting === 0) call.cancelling.abort(reason);
  }

  /** Sends what waits, once everybody who asks at this moment has done so. */
  #schedule(): void {
    if (this.#isScheduled || this.#calls === CONCURRENCY || this.#waiting.length === 0) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      void this.#send(this.#take());
      this.#schedule();
    });
  }

  /** Takes what goes into the next call. */
  #take(): readonly Waiting<Item, Result>[] {
    let [count, bytes] = [0, 0];
    for (const { item } of this.#waiting) {
      bytes += this.#options.bytesOf(item);
      if (count > 0 && (count === MAX_BATCH_BLOBS || bytes > BATCH_BYTES)) break;
      count += 1;
    }
    return this.#waiting.splice(0, count);
  }

  async #send(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    if (batch.length === 0) return; // all were cancelled
    this.#calls += 1;
    try {
      await this.#call(batch);
    } catch (error) {
      const isOfItem = OF_ITEMS.some((code) => hasCode(error, code));
      for (const one of batch) {
        if (one.isDropped) continue;
        if (batch.length > 1 && isOfItem) await this.#call([one]).catch(one.reject);
        else one.reject(error);
      }
    }
    this.#calls -= 1;
    this.#schedule();
  }

  /** Makes a call, which is cancelled once nobody waits for it. */
  async #call(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    const call = { cancelling: new AbortController(), waiting: batch.length };
    for (const one of batch) one.call = call;
    const items = batch.map(({ item }) => item);
    const results = await this.#options.call(items, { signal: call.cancelling.signal });
    for (const [i, { resolve }] of batch.entries()) resolve(results[i]!);
  }
}
