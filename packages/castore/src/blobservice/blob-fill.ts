import { copyBytes } from "../bytes.ts";
import type { B3Digest } from "../digest.ts";
import { CastoreError } from "../errors.ts";
import { BlobHasher } from "../hash/blob-hasher.ts";
import type { BlobService, BlobWriter } from "./blob-service.ts";
import { readSharing } from "./read-sharing.ts";

/** How many bytes are kept for readers, behind what was copied last. */
const WINDOW_BYTES = 4 * 1024 * 1024;

/** Some bytes of the blob, and where they begin. */
interface Piece {
  readonly start: number;
  readonly data: Uint8Array;
}

/** `copied`: all of it was read, but the writer has not ended yet. */
type FillState = "copying" | "copied" | "stored" | "failed";

/**
 * Copies one blob from one service to another, once for all who read it meanwhile. Of a blob in chunks, those that
 * the other has are not read again. It goes on at its own pace
 * whatever they do: who keeps up reads along, who falls behind, or stops, holds up nobody.
 */
export class BlobFill {
  readonly #digest: B3Digest;
  readonly #far: BlobService;
  readonly #near: BlobService;
  readonly #onFailure: (error: unknown) => void;
  readonly #signal: AbortSignal;
  readonly #window: Piece[] = [];
  #windowBytes = 0;
  #copied = 0;
  #state: FillState = "copying";
  #wake = Promise.withResolvers<void>();
  /** Resolves when it has begun, with whether there is such a blob; rejects if that cannot be told. */
  readonly found: Promise<boolean>;
  /** Resolves when it is over. */
  readonly over: Promise<void>;

  /**
   * @param onFailure is told why the blob is not in `near` afterwards, or cannot be read there
   * @param signal ends it
   */
  constructor(
    digest: B3Digest,
    services: { far: BlobService; near: BlobService },
    onFailure: (error: unknown) => void,
    signal: AbortSignal,
  ) {
    this.#digest = digest;
    this.#far = services.far;
    this.#near = services.near;
    this.#onFailure = onFailure;
    this.#signal = signal;
    const opened = readSharing(digest, services, { signal });
    this.found = opened.then((stream) => stream !== undefined);
    this.over = opened.then(
      (stream) => (stream === undefined ? undefined : this.#run(stream)),
      () => undefined, // told to whoever awaits `found`
    );
  }

  /**
   * Reads the blob from one position up to, but without, another: along with the copy, or, when that is
   * further, or failed, from one of the services. The pieces belong to whoever iterates.
   */
  async *read(start: number, end: number): AsyncGenerator<Uint8Array> {
    let at = start;
    while (at < end) {
      const piece = this.#window.find(({ start, data }) => at < start + data.length);
      if (piece !== undefined && piece.start <= at) {
        const data = copyBytes(piece.data.subarray(at - piece.start, end - piece.start));
        at += data.length;
        yield data;
      } else if (this.#state === "stored" || this.#state === "failed") {
        if (this.#state === "stored" && at >= this.#copied) return;
        yield* this.#rest(at, end);
        return;
      } else if (this.#state === "copied" && at >= this.#copied) {
        return;
      } else {
        await this.#wake.promise;
      }
    }
  }

  /** Reads what is left of the blob from the service that has it. The near one may have lost it by now. */
  async *#rest(offset: number, end: number): AsyncGenerator<Uint8Array> {
    this.#signal.throwIfAborted();
    let at = offset;
    if (this.#state === "stored") {
      try {
        const stream = await this.#near.read(this.#digest, { offset, length: end - offset });
        for await (const data of stream ?? []) {
          at += data.length;
          yield data;
        }
        if (stream !== undefined) return;
      } catch (error) {
        this.#onFailure(error);
      }
    }
    const rest = await this.#far.read(this.#digest, { offset: at, length: end - at });
    if (rest === undefined) {
      throw new CastoreError("data_loss", `Cannot read blob ${this.#digest}: it is gone`);
    }
    yield* rest;
  }

  async #run(stream: AsyncIterable<Uint8Array>): Promise<void> {
    let writer: BlobWriter | undefined;
    try {
      writer = this.#near.openWriter({ signal: this.#signal });
      const hasher = new BlobHasher();
      for await (const lent of stream) {
        const data = copyBytes(lent);
        hasher.update(data);
        this.#keep(data);
        await writer.write(data);
      }
      const found = hasher.digest();
      if (!found.equals(this.#digest)) {
        throw new CastoreError("data_loss", `Cannot copy blob ${this.#digest}: found ${found}`);
      }
      this.#become("copied");
      await writer.close();
      this.#become("stored");
    } catch (error) {
      this.#become("failed");
      this.#onFailure(error);
    } finally {
      await Promise.allSettled([writer?.[Symbol.asyncDispose]()]); // what failed was told
    }
  }

  #keep(data: Uint8Array): void {
    if (data.length === 0) return;
    this.#window.push({ start: this.#copied, data });
    this.#copied += data.length;
    this.#windowBytes += data.length;
    while (this.#windowBytes > WINDOW_BYTES && this.#window.length > 1) {
      this.#windowBytes -= this.#window.shift()!.data.length;
    }
    this.#become("copying");
  }

  #become(state: FillState): void {
    this.#state = state;
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }
}
