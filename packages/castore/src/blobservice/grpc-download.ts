import { freeUnshared } from "../bytes.ts";
import type { B3Digest } from "../digest.ts";
import { CastoreError } from "../errors.ts";
import { BlobHasher } from "../hash/blob-hasher.ts";
import { fromConnectError } from "../rpc/connect-error.ts";

/** Up to this many bytes are verified before any of them is passed on. */
const VERIFIED_AHEAD = 4 * 1024 * 1024;

/** A call whose response is bytes. */
interface DataCall {
  /** The next ones; `undefined` after the last. */
  nextData(): Promise<Uint8Array | undefined>;
  cancel(): void;
}

/** A blob, or a chunk, that is read by one call, and verified. */
export class Download {
  readonly #digest: B3Digest;
  readonly #action: string;
  readonly #callerSignal: AbortSignal | undefined;
  readonly #start: () => Promise<DataCall>;
  #call: DataCall | undefined;
  readonly #hasher = new BlobHasher();
  /** What has come and is not passed on. */
  readonly #held: Uint8Array[] = [];
  #heldBytes = 0;
  #complete = false;

  /**
   * @param start starts the call, which the signal cancels
   * @param action what is attempted and where, for messages
   */
  constructor(
    digest: B3Digest,
    start: () => Promise<DataCall>,
    action: string,
    callerSignal: AbortSignal | undefined,
  ) {
    this.#digest = digest;
    this.#start = start;
    this.#action = action;
    this.#callerSignal = callerSignal;
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

  /** Everything from the start on, in pieces that are lent until the next one is asked for. To be iterated once. */
  async *contents(): AsyncGenerator<Uint8Array> {
    try {
      while (!this.#complete) {
        await this.#receive();
        while (!this.#complete && this.#heldBytes > VERIFIED_AHEAD) yield* this.#lend();
      }
      while (this.#held.length > 0) yield* this.#lend();
    } finally {
      this.cancel();
    }
  }

  /** Ends the call. */
  cancel(): void {
    this.#call?.cancel();
  }

  *#lend(): Generator<Uint8Array> {
    this.#callerSignal?.throwIfAborted();
    const data = this.#held.shift()!;
    this.#heldBytes -= data.length;
    yield data;
    freeUnshared(data);
  }

  async #receive(): Promise<void> {
    let data: Uint8Array | undefined;
    try {
      this.#call ??= await this.#start();
      data = await this.#call.nextData();
    } catch (error) {
      this.cancel();
      throw fromConnectError(error, this.#action, this.#callerSignal);
    }
    if (data === undefined) {
      this.#complete = true;
      const found = this.#hasher.digest();
      if (found.equals(this.#digest)) return;
      throw new CastoreError("data_loss", `${this.#action}: what was sent has digest ${found}`);
    }
    this.#hasher.update(data);
    this.#held.push(data);
    this.#heldBytes += data.length;
  }
}
