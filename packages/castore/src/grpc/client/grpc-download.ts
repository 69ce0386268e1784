import { setTimeout as delay } from "node:timers/promises";
import { concatBytes } from "../../bytes/byte-string.ts";
import { BlobHasher } from "../../hash/blob-hasher.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { fromConnectError } from "../transport/connect-error.ts";

/** Up to this many bytes are verified before any of them is passed on. */
const VERIFIED_AHEAD = 4 * 1024 * 1024;

/** So many pieces that are held become one: those of a server that sends a byte at a time would fill the memory. */
const MAX_PIECES = 1024;

/** How often a call that breaks off is made again without bringing anything, and the first pause before, doubled then. */
const MAX_TRIES = 4;
const PAUSE_MS = 100;

/** A call whose response is bytes. */
export interface DataCall {
  /** The next ones; `undefined` after the last. */
  nextData(): Promise<Uint8Array | undefined>;
  cancel(): void;
}

/** Options of {@link Download}. */
export interface DownloadOptions {
  /** Starts a call that gives everything from this byte on. */
  start: (offset: number) => Promise<DataCall>;
  /** What is attempted and where, for messages. */
  action: string;
  /** Length in bytes, if it is known: no more is taken. */
  size?: number | undefined;
  /**
   * Whether another call is made where one breaks off: `begun`, if it has brought something; `always`, where all this
   * is a part of something that has begun. Default: `begun`.
   */
  resume?: "never" | "begun" | "always" | undefined;
  /** Cancels the calls. */
  signal?: AbortSignal | undefined;
}

/** A blob, or a chunk, that is read by one call, and verified. Where that breaks off, another one goes on. */
export class Download {
  readonly #digest: B3Digest;
  readonly #options: DownloadOptions;
  #call: DataCall | undefined;
  readonly #hasher = new BlobHasher();
  /** What has come and is not passed on. */
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  #receivedBytes = 0;
  /** How many calls have brought nothing since the last bytes came. */
  #tries = 0;
  #complete = false;

  constructor(digest: B3Digest, options: DownloadOptions) {
    this.#digest = digest;
    this.#options = options;
  }

  /**
   * Takes what the server sends, until all of it has come or it turns out to be large.
   *
   * @returns whether the server has it
   * @throws CastoreError `data_loss` if it does not match its digest, or is longer than it should be
   */
  async begin(): Promise<boolean> {
    try {
      while (!this.#complete && this.#heldBytes <= VERIFIED_AHEAD) await this.#receive();
      return true;
    } catch (error) {
      this.cancel();
      if (isAbsence(error)) return false;
      throw error;
    }
  }

  /** Everything from the start on, in pieces that belong to the caller. To be iterated once. */
  async *contents(): AsyncGenerator<Uint8Array> {
    try {
      while (!this.#complete) {
        await this.#receive();
        while (!this.#complete && this.#heldBytes > VERIFIED_AHEAD) yield* this.#handOut();
      }
      while (this.#held.length > 0) yield* this.#handOut();
    } finally {
      this.cancel();
    }
  }

  /** Ends the call. */
  cancel(): void {
    this.#call?.cancel();
    if (!this.#complete) this.#hasher.digest(); // frees it
    this.#complete = true;
  }

  *#handOut(): Generator<Uint8Array> {
    this.#options.signal?.throwIfAborted();
    const data = this.#held.shift()!;
    this.#heldBytes -= data.length;
    yield data;
  }

  async #receive(): Promise<void> {
    const { action, size = Number.POSITIVE_INFINITY } = this.#options;
    const data = await this.#nextData();
    if (data === undefined) {
      this.#complete = true;
      const found = this.#hasher.digest();
      if (found.equals(this.#digest)) return;
      throw new CastoreError("data_loss", `${action}: what was sent has digest ${found}`);
    }
    this.#receivedBytes += data.length;
    if (this.#receivedBytes > size) {
      throw new CastoreError("data_loss", `${action}: expected ${size} bytes, found more`);
    }
    this.#tries = 0;
    this.#hasher.update(data);
    this.#held.push(data);
    this.#heldBytes += data.length;
    if (this.#held.length === MAX_PIECES) this.#held = [concatBytes(this.#held)];
  }

  async #nextData(): Promise<Uint8Array | undefined> {
    const { start, action, signal } = this.#options;
    let broken: unknown;
    for (;;) {
      try {
        this.#call ??= await start(this.#receivedBytes);
        return await this.#call.nextData();
      } catch (error) {
        this.#call?.cancel();
        this.#call = undefined;
        const failure = fromConnectError(error, action, signal);
        // That it is gone by now is not why it broke off.
        if (!this.#mayGoOn(failure)) throw isAbsence(failure) ? (broken ?? failure) : failure;
        broken = failure;
        await this.#pause();
      }
    }
  }

  /** Whether another call may help where one has failed. */
  #mayGoOn(failure: unknown): boolean {
    const isBroken = failure instanceof CastoreError && failure.code === "unavailable";
    if (!isBroken || this.#tries === MAX_TRIES) return false;
    const { resume = "begun" } = this.#options;
    return resume === "always" || (resume === "begun" && this.#receivedBytes > 0);
  }

  async #pause(): Promise<void> {
    const { signal } = this.#options;
    try {
      await delay(PAUSE_MS * 2 ** this.#tries, undefined, { signal });
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    }
    this.#tries += 1;
  }
}

function isAbsence(failure: unknown): boolean {
  return failure instanceof CastoreError && failure.code === "not_found";
}

/** A stream as a call. */
export function callOf(stream: AsyncIterable<Uint8Array>): DataCall {
  const iterator = stream[Symbol.asyncIterator]();
  return {
    async nextData() {
      const { done, value } = await iterator.next();
      return done ? undefined : value;
    },
    cancel: () => void iterator.return?.(),
  };
}

/** A call without the first bytes of it. */
export function passingBy(call: DataCall, bytes: number): DataCall {
  let missing = bytes;
  return {
    async nextData() {
      for (;;) {
        const data = await call.nextData();
        if (data === undefined || data.length > missing) {
          const rest = data?.subarray(missing);
          missing = 0;
          return rest;
        }
        missing -= data.length;
      }
    },
    cancel: () => call.cancel(),
  };
}
