import { concatBytes } from "../../bytes/byte-string.ts";
import { BlobHasher } from "../../hash/blob-hasher.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError, hasCode } from "../../model/errors.ts";
import type { Retries } from "../transport/retry.ts";
import { fromRpcError } from "../transport/rpc-error.ts";

/** Up to this many bytes are verified before any of them is passed on. */
const VERIFIED_AHEAD = 4 * 1024 * 1024;

/** So many pieces that are held become one: those of a server that sends a byte at a time would fill the memory. */
const MAX_PIECES = 1024;

/** After this long a call is ended whose bytes nobody has begun to read. Another one goes on where it was. */
const UNREAD_MS = 5_000;

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
  /** Decides whether another call is made where one breaks off. Default: none is. */
  retries?: Retries | undefined;
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
  #complete = false;
  #unread: NodeJS.Timeout | undefined;

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
      if (!this.#complete) this.#unread = setTimeout(() => this.#leave(), UNREAD_MS).unref();
      return true;
    } catch (error) {
      this.cancel();
      if (hasCode(error, "not_found")) return false;
      throw error;
    }
  }

  /** Everything from the start on, in pieces that belong to the caller. To be iterated once. */
  async *contents(): AsyncGenerator<Uint8Array> {
    clearTimeout(this.#unread);
    try {
      while (!this.#complete) {
        await this.#receive();
        while (!this.#complete && this.#heldBytes > VERIFIED_AHEAD) yield this.#take();
      }
      while (this.#held.length > 0) yield this.#take();
    } finally {
      this.cancel();
    }
  }

  /** Ends the call. */
  cancel(): void {
    this.#leave();
    if (!this.#complete) this.#hasher.digest(); // frees it
    this.#complete = true;
  }

  #leave(): void {
    this.#call?.cancel();
    this.#call = undefined;
  }

  #take(): Uint8Array {
    this.#options.signal?.throwIfAborted();
    const data = this.#held.shift()!;
    this.#heldBytes -= data.length;
    return data;
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
    this.#options.retries?.reset();
    this.#hasher.update(data);
    this.#held.push(data);
    this.#heldBytes += data.length;
    if (this.#held.length === MAX_PIECES) this.#held = [concatBytes(this.#held)];
  }

  async #nextData(): Promise<Uint8Array | undefined> {
    const { start, retries, action, signal } = this.#options;
    let broken: unknown;
    for (;;) {
      try {
        this.#call ??= await start(this.#receivedBytes);
        return await this.#call.nextData();
      } catch (error) {
        this.#leave();
        try {
          if (retries === undefined) throw error;
          await retries.pause(error);
          broken = error;
        } catch (last) {
          const failure = fromRpcError(last, action, signal);
          // That it is gone by now is not why it broke off.
          if (broken === undefined || !hasCode(failure, "not_found")) throw failure;
          throw fromRpcError(broken, action, signal);
        }
      }
    }
  }
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
