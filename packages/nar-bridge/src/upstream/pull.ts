import { unlessAborted } from "@tvix/castore";
import type { ByteRange } from "../exchange.ts";
import { Spool, type SpoolSpace } from "./spool.ts";

/** Reads a part of a NAR that is stored. */
export type ReadStored = (range: ByteRange, signal: AbortSignal) => AsyncIterable<Uint8Array>;

/** Watches the bytes of a NAR on their way, anew for each attempt to download it. */
export type Watch = (nar: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>;

/** Downloads and stores a NAR. */
export type Download = (watch: Watch, signal: AbortSignal) => Promise<ReadStored>;

/**
 * A NAR that is downloaded, stored, and meanwhile sent to any number of clients, each at its own pace: what has arrived is
 * read from a {@link Spool}, and once everything is stored, from the store. A client that is ahead of the spool waits for
 * that.
 *
 * No client gets its last byte before the NAR is verified and stored: a wrong one ends no answer cleanly.
 */
export class Pull {
  readonly size: number;
  /** Settles when the NAR is stored, or failed. */
  readonly ended: Promise<void>;
  readonly #spool: Spool;
  readonly #abandon = new AbortController();
  #readers = 0;
  #received = 0;
  #stored: ReadStored | undefined;
  #failure: { readonly error: unknown } | undefined;
  #changed = Promise.withResolvers<void>();

  constructor(size: number, space: SpoolSpace, download: Download) {
    this.size = size;
    this.#spool = new Spool(space);
    this.ended = this.#run(download);
  }

  /** Whether nobody waits for it any more, so that it does not come to its end. */
  get isAbandoned(): boolean {
    return this.#abandon.signal.aborted;
  }

  /**
   * Joins the readers. Where the last one leaves before half of the NAR has arrived, the download is abandoned.
   *
   * @returns leaves again when it is disposed of
   */
  join(): Disposable {
    this.#readers += 1;
    return {
      [Symbol.dispose]: () => {
        this.#readers -= 1;
        if (this.#readers === 0 && this.#received * 2 < this.size) this.abandon();
      },
    };
  }

  /** Ends the download, unless it has ended. */
  abandon(): void {
    this.#abandon.abort(new DOMException("abandoned: all readers have gone", "AbortError"));
  }

  /** Waits until something has arrived. Throws what the download failed with. */
  async begun(signal: AbortSignal): Promise<void> {
    while (this.#stored === undefined && this.#spool.written === 0) await this.#change(signal);
  }

  /** Waits until the NAR is stored. Throws what the download failed with. */
  async stored(signal: AbortSignal): Promise<void> {
    while (this.#stored === undefined) await this.#change(signal);
  }

  /** Reads a part of the NAR, whose pieces belong to the caller. */
  async *read({ offset, length }: ByteRange, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      if (this.#stored !== undefined) {
        const rest = this.#spool.rest(at, this.size);
        if (rest === undefined) yield* this.#stored({ offset: at, length: end - at }, signal);
        else yield rest.subarray(0, end - at);
        return;
      }
      if (this.#failure !== undefined || at >= Math.min(this.#spool.kept, end - 1)) {
        await this.#change(signal);
        continue;
      }
      const piece = await this.#spool.read(at, end - 1);
      yield piece;
      at += piece.length;
    }
  }

  async #run(download: Download): Promise<void> {
    try {
      this.#stored = await download((nar) => this.#watch(nar), this.#abandon.signal);
    } catch (error) {
      this.#failure = { error };
    } finally {
      this.#wake();
      await this.#spool[Symbol.asyncDispose]();
    }
  }

  async *#watch(nar: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    let offset = 0;
    for await (const piece of nar) {
      await this.#spool.put(offset, piece);
      offset += piece.length;
      this.#received = Math.max(this.#received, offset);
      this.#wake();
      yield piece;
    }
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  /** Waits until more has arrived, or the download has ended. Throws what it failed with. */
  async #change(signal: AbortSignal): Promise<void> {
    if (this.#failure === undefined) await unlessAborted(this.#changed.promise, signal);
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
