import type { AbortOptions } from "../../bytes/abort-options.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_BATCH_BLOBS } from "../../model/limits.ts";

/** A blob whose digest is known. */
export interface HashedBlob {
  readonly digest: B3Digest;
  readonly data: Uint8Array;
}

/** Stores blobs with one call, and tells whether the server takes batches: nothing is stored if it does not. */
type PutBatch = (blobs: readonly HashedBlob[], options: AbortOptions) => Promise<boolean>;

/** How many calls are under way at the same time: while the server works on one, the next is gathered and sent. */
const CONCURRENCY = 2;

/** How many bytes of blobs go into one call. */
const BATCH_BYTES = 1024 * 1024;

/** A blob, and whoever waits for it. */
interface Waiting extends PromiseWithResolvers<boolean> {
  readonly blob: HashedBlob;
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
 * Gathers small blobs that are put at the same time, each by itself, into few calls. None waits for more to come: a call
 * takes what has come while others were under way.
 */
export class PutGatherer {
  readonly #putBatch: PutBatch;
  #waiting: Waiting[] = [];
  #calls = 0;
  #isScheduled = false;

  constructor(putBatch: PutBatch) {
    this.#putBatch = putBatch;
  }

  /**
   * Stores a blob, whose bytes are left alone until it resolves.
   *
   * @returns whether the server takes batches: nothing is stored if it does not
   */
  async put(blob: HashedBlob, { signal }: AbortOptions = {}): Promise<boolean> {
    signal?.throwIfAborted();
    const resolvers = Promise.withResolvers<boolean>();
    const waiting: Waiting = { blob, call: undefined, isDropped: false, ...resolvers };
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

  #drop(waiting: Waiting, reason: unknown): void {
    waiting.isDropped = true;
    waiting.reject(reason);
    const { call } = waiting;
    if (call === undefined) this.#waiting = this.#waiting.filter((one) => one !== waiting);
    else if (--call.waiting === 0) call.cancelling.abort(reason);
  }

  /** Sends what waits, once everybody who puts at this moment has done so. */
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
  #take(): readonly Waiting[] {
    let [count, bytes] = [0, 0];
    for (const { blob } of this.#waiting) {
      bytes += blob.data.length;
      if (count > 0 && (count === MAX_BATCH_BLOBS || bytes > BATCH_BYTES)) break;
      count += 1;
    }
    return this.#waiting.splice(0, count);
  }

  async #send(batch: readonly Waiting[]): Promise<void> {
    if (batch.length === 0) return; // all were cancelled
    this.#calls += 1;
    try {
      await this.#store(batch);
    } catch (error) {
      const isDown = error instanceof CastoreError && error.code === "unavailable";
      for (const one of batch) {
        if (one.isDropped) continue;
        // One of them may be at fault, or all together are too long.
        if (batch.length > 1 && !isDown) await this.#store([one]).catch(one.reject);
        else one.reject(error);
      }
    }
    this.#calls -= 1;
    this.#schedule();
  }

  /** Stores blobs with one call, which is cancelled once nobody waits for it. */
  async #store(batch: readonly Waiting[]): Promise<void> {
    const call = { cancelling: new AbortController(), waiting: batch.length };
    for (const one of batch) one.call = call;
    const blobs = batch.map(({ blob }) => blob);
    const takesBatches = await this.#putBatch(blobs, { signal: call.cancelling.signal });
    for (const { resolve } of batch) resolve(takesBatches);
  }
}
