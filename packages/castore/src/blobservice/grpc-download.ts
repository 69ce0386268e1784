import type { BlobChunk } from "@tvix/proto/castore";
import { B3Digest } from "../digest.ts";
import { CastoreError } from "../errors.ts";
import { blake3 } from "../hash/blake3.ts";
import { fromConnectError } from "../rpc/connect-error.ts";

/** Up to this many bytes are verified before any of them is passed on. */
const VERIFIED_AHEAD = 4 * 1024 * 1024;

/** A blob, or a chunk, that is read by one call, and verified. */
export class Download {
  readonly #digest: B3Digest;
  readonly #action: string;
  readonly #callerSignal: AbortSignal | undefined;
  readonly #stop = new AbortController();
  readonly #messages: AsyncIterator<BlobChunk>;
  readonly #hasher = blake3.createHasher();
  /** What has come and is not passed on. */
  readonly #held: Uint8Array[] = [];
  #heldBytes = 0;
  #complete = false;

  /**
   * @param call starts the call, which ends with the signal
   * @param action what is attempted and where, for messages
   */
  constructor(
    digest: B3Digest,
    call: (signal: AbortSignal) => AsyncIterable<BlobChunk>,
    action: string,
    callerSignal: AbortSignal | undefined,
  ) {
    this.#digest = digest;
    this.#action = action;
    this.#callerSignal = callerSignal;
    const { signal } = this.#stop;
    const callSignal = callerSignal ? AbortSignal.any([callerSignal, signal]) : signal;
    this.#messages = call(callSignal)[Symbol.asyncIterator]();
  }

  /**
   * Takes what the server sends, until all of it has come or it turns out to be large.
   *
   * @returns whether the server has it
   * @throws CastoreError `data_loss` if it does not match its digest
   */
  async begin(): Promise<boolean> {
    try {
      while (!this.#complete && this.#heldBytes <= VERIFIED_AHEAD) await this.#receive();
      return true;
    } catch (error) {
      if (error instanceof CastoreError && error.code === "not_found") return false;
      throw error;
    }
  }

  /** Everything from the start on. To be iterated once. */
  async *contents(): AsyncGenerator<Uint8Array> {
    try {
      while (!this.#complete) {
        await this.#receive();
        while (!this.#complete && this.#heldBytes > VERIFIED_AHEAD) yield this.#release();
      }
      while (this.#held.length > 0) yield this.#release();
    } finally {
      this.cancel();
    }
  }

  /** Ends the call. */
  cancel(): void {
    this.#stop.abort();
  }

  #release(): Uint8Array {
    this.#callerSignal?.throwIfAborted();
    const data = this.#held.shift()!;
    this.#heldBytes -= data.length;
    return data;
  }

  async #receive(): Promise<void> {
    let message: IteratorResult<BlobChunk>;
    try {
      message = await this.#messages.next();
    } catch (error) {
      throw fromConnectError(error, this.#action, this.#callerSignal);
    }
    if (message.done) {
      this.#complete = true;
      const found = B3Digest.fromBytes(this.#hasher.digest());
      if (found.equals(this.#digest)) return;
      throw new CastoreError("data_loss", `${this.#action}: what was sent has digest ${found}`);
    }
    const { data } = message.value;
    if (data.length === 0) return;
    this.#hasher.update(data);
    this.#held.push(data);
    this.#heldBytes += data.length;
  }
}
