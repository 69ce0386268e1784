import { unlessAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { copyBytes } from "../bytes/byte-string.ts";
import { SharedSource } from "../cache/shared-source.ts";
import type { Tiers } from "../cache/tiers.ts";
import { NearWriter } from "../cache/write-through.ts";
import { BlobHasher } from "../hash/blob-hasher.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import type { BlobService } from "./blob-service.ts";
import { PieceWindow, type WindowSpace } from "./piece-window.ts";
import { type NearReads, readSharing } from "./read-sharing.ts";

/** What a {@link BlobFill} needs. */
export interface BlobFillOptions {
  readonly digest: B3Digest;
  readonly tiers: Tiers<BlobService>;
  /** What may already have chunks of the blob. */
  readonly near: NearReads;
  readonly space: WindowSpace;
  /** Is told when nobody reads any more along with a copy that has more to read of the far blob. */
  readonly onIdle: (fill: BlobFill) => void;
}

/**
 * Reads one blob of the far half, once for all who read it meanwhile, one of whom is the copy to the near half. Of a
 * blob in chunks, those that the near half has are not read again. Whoever is first goes on reading, and waits for
 * none of the others: what was read last is held for them, and who falls behind further reads the rest by itself, the
 * copy from the far half, readers from the near one when the copy is done.
 */
export class BlobFill {
  readonly #options: BlobFillOptions;
  readonly #given = new AbortController();
  readonly #signal: AbortSignal;
  #source: SharedSource<Uint8Array> | undefined;
  /** What has come from the source last. */
  readonly #window: PieceWindow;
  /** Up to where the near half has been given it. */
  #copiedTo = 0;
  /** `alone`: it has fallen behind, and does without the source. `read`: it needs no more of the far blob. */
  #copying: "along" | "alone" | "read" | "over" = "along";
  #isStored = false;
  readonly #readers = new Set<{ at: number }>();
  /** Resolves when it has begun, with whether there is such a blob; rejects if that cannot be told. */
  readonly found: Promise<boolean>;
  /** Resolves when nothing is copied any more. */
  readonly over: Promise<void>;

  constructor(options: BlobFillOptions) {
    const { digest, near, space, tiers } = options;
    this.#options = options;
    this.#window = new PieceWindow(space);
    this.#signal = AbortSignal.any([this.#given.signal, tiers.closing]);
    const opening = readSharing(digest, { near, far: tiers.far }, { signal: this.#signal });
    this.found = unlessAborted(opening, this.#signal).then((stream) => {
      if (stream !== undefined) this.#source = this.#share(stream);
      return stream !== undefined;
    });
    this.over = this.found.then(
      (isFound) => (isFound ? this.#run() : undefined),
      () => undefined, // told to whoever awaits `found`
    );
  }

  /** Whether nobody reads along with a copy that has more to read of the far blob. */
  get isIdle(): boolean {
    if (this.#readers.size > 0) return false;
    if (this.#copying !== "along") return this.#copying === "alone";
    return this.#source?.state === "reading" || this.#copiedTo < this.#window.start;
  }

  /** Ends the copy, of which nobody is told. */
  giveUp(): void {
    this.#given.abort(new CastoreError("aborted", "Cannot go on: there is no room for the copy"));
  }

  /**
   * Reads the blob from one position up to, but without, another. Pieces are lent until the next one is asked for,
   * and belong to whoever iterates until then.
   */
  async *read(start: number, end: number, options?: AbortOptions): AsyncGenerator<Uint8Array> {
    const reader = { at: start };
    this.#readers.add(reader);
    try {
      while (reader.at < end) {
        await unlessAborted(this.#reach(reader.at), options?.signal);
        const piece = this.#window.at(reader.at);
        if (piece === undefined) break;
        const from = reader.at - piece.start;
        const data = copyBytes(piece.data.subarray(from, end - piece.start));
        reader.at += data.length;
        yield data;
      }
    } finally {
      this.#readers.delete(reader);
      this.#closeUnused();
      if (this.isIdle) this.#options.onIdle(this);
    }
    const { at } = reader;
    if (at < end && !this.#isEnd(at)) yield* this.#rest(at, end, options);
  }

  /** Whether the blob is known to end at a position. */
  #isEnd(position: number): boolean {
    return this.#source?.state === "ended" && position >= this.#window.end;
  }

  /** Reads what is left of the blob from the half that has it. The near one may have lost it by now. */
  async *#rest(offset: number, end: number, options?: AbortOptions): AsyncGenerator<Uint8Array> {
    const { digest, tiers } = this.#options;
    tiers.closing.throwIfAborted();
    const action = `read blob ${digest} from`;
    let at = offset;
    if (this.#isStored) {
      const length = end - at;
      const open = (near: BlobService, options: AbortOptions) =>
        near.read(digest, { ...options, offset, length });
      const stream = await tiers.openNear(action, open, options);
      try {
        for await (const data of stream ?? []) {
          at += data.length;
          yield data;
        }
        if (stream !== undefined) return;
      } catch (error) {
        options?.signal?.throwIfAborted();
        tiers.warn(action, error);
      }
    }
    yield* await this.#readFar(at, end, options);
  }

  async #readFar(
    offset: number,
    end: number,
    options?: AbortOptions,
  ): Promise<AsyncIterable<Uint8Array>> {
    const { digest, tiers } = this.#options;
    const rest = await tiers.far.read(digest, { ...options, offset, length: end - offset });
    if (rest !== undefined) return rest;
    throw new CastoreError("data_loss", `Cannot read blob ${digest}: it is gone`);
  }

  async #run(): Promise<void> {
    const { digest, tiers } = this.#options;
    const action = `keep blob ${digest} in`;
    try {
      await this.#copy(action);
    } catch (error) {
      if (!this.#signal.aborted) tiers.warn(action, error);
    } finally {
      this.#copying = "over";
      this.#closeUnused();
    }
  }

  async #copy(action: string): Promise<void> {
    const { digest, tiers } = this.#options;
    const signal = this.#signal;
    const open = (near: BlobService, options: AbortOptions) => near.openWriter(options);
    await using writer = new NearWriter(tiers, action, open, { signal });
    const hasher = new BlobHasher();
    let isWritten = true;
    let found: B3Digest;
    try {
      for await (const data of this.#all()) {
        hasher.update(data);
        isWritten = await writer.try((writer) => writer.write(data));
        if (!isWritten) break;
      }
    } finally {
      found = hasher.digest();
    }
    if (!isWritten) return;
    this.#copying = "read";
    if (!found.equals(digest)) {
      throw new CastoreError("data_loss", `Cannot copy blob ${digest}: found ${found}`);
    }
    this.#isStored = await writer.try((writer) => writer.close());
  }

  /** All of the blob for the copy: by itself from the far half, from where it has fallen behind on. */
  async *#all(): AsyncGenerator<Uint8Array> {
    for (;;) {
      await this.#reach(this.#copiedTo);
      const piece = this.#window.at(this.#copiedTo);
      if (piece === undefined) break;
      this.#copiedTo = piece.end;
      yield piece.data;
    }
    if (this.#source?.state === "failed") throw this.#source.failure;
    if (this.#isEnd(this.#copiedTo)) return;
    this.#copying = "alone";
    this.#closeUnused();
    yield* await this.#readFar(this.#copiedTo, Number.MAX_SAFE_INTEGER, { signal: this.#signal });
  }

  #share(stream: AsyncIterable<Uint8Array>): SharedSource<Uint8Array> {
    const onItem = (data: Uint8Array) => this.#window.add(data, this.#isPassed);
    return new SharedSource(stream, { onItem, signal: this.#signal });
  }

  /** Has the source read beyond a position, if it has not been; whoever waits for that, waits for nothing else. */
  async #reach(position: number): Promise<void> {
    await this.#source?.readWhile(() => position >= this.#window.end);
  }

  readonly #isPassed = (end: number): boolean => {
    if (this.#copying === "along" && this.#copiedTo < end) return false;
    return [...this.#readers].every(({ at }) => at >= end);
  };

  /** Closes the source, if neither the copy nor a reader needs what is of it any more. */
  #closeUnused(): void {
    const isNeeded = this.#copying === "along" || this.#copying === "read";
    if (isNeeded || this.#readers.size > 0) return;
    if (this.#source !== undefined) this.#options.tiers.inBackground(this.#source.close());
    this.#window.clear();
  }
}
