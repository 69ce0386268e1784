import type { BlobService } from "../blobservice/blob-service.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { SlabPool } from "../worker/slab-pool.ts";

/** Largest file in bytes that is stored together with others. */
const SMALL_FILE = 128 * 1024;

/** Most bytes, and most files, of a batch. */
const BATCH_BYTES = 1024 * 1024;
const BATCH_FILES = 512;

/** Most batches and large files that are being stored while the next ones are read. */
const MAX_IN_FLIGHT = 8;

/** A file whose contents are about to be read. */
export interface IncomingFile {
  /** Length of the contents in bytes. */
  readonly size: number;
  /** The contents, in pieces that may be lent until the next one is asked for. */
  readonly contents: AsyncIterable<Uint8Array>;
}

/** Receives the outcome for a file: one of the two is called, once. */
export interface StoreOutcome {
  /** The contents are durable. */
  resolve(digest: B3Digest): void;
  /** The contents could not be stored, for the reason that the service rejects with. */
  reject(reason: unknown): void;
}

/** Files that are stored together. */
interface Batch {
  readonly files: Uint8Array[];
  readonly outcomes: StoreOutcome[];
  /** The buffer that they are read into, in a row. */
  readonly slab: SharedArrayBuffer;
  bytes: number;
}

/**
 * Stores the contents of files that are read in a row, as from an archive: small ones in batches, and all of them while
 * the next ones are read. Holds some megabytes at most.
 *
 * Disposing of it waits for what is being stored, and drops the batch that is not full.
 */
export class ContentsStore implements AsyncDisposable {
  readonly #blobService: BlobService;
  readonly #options: AbortOptions;
  readonly #inFlight = new Set<Promise<void>>();
  readonly #slabs = new SlabPool(BATCH_BYTES, MAX_IN_FLIGHT + 1);
  #batch: Batch | undefined;
  #failure: { readonly reason: unknown } | undefined;

  constructor(blobService: BlobService, options: AbortOptions = {}) {
    this.#blobService = blobService;
    this.#options = options;
  }

  /**
   * Takes a file, one at a time. Resolves when its contents were read.
   *
   * @param outcome receives the digest when they are durable, which may be much later. Promises would take more memory
   *   than the contents of small files
   * @throws whatever the contents throw, and the service of this file or one before it
   */
  async add(file: IncomingFile, outcome: StoreOutcome): Promise<void> {
    this.#throwIfFailed();
    await (file.size > SMALL_FILE ? this.#large(file, outcome) : this.#small(file, outcome));
  }

  /**
   * Stores the last batch, and resolves when all files are durable. Called once, last.
   *
   * @throws whatever the service throws
   */
  async finish(): Promise<void> {
    this.#flush();
    await Promise.all(this.#inFlight);
    this.#throwIfFailed();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const batch = this.#batch;
    this.#batch = undefined;
    if (batch !== undefined) {
      const reason = new CastoreError("aborted", "Cannot store files: reading them ended early");
      for (const outcome of batch.outcomes) outcome.reject(reason);
    }
    await Promise.all(this.#inFlight);
  }

  async #small({ size, contents }: IncomingFile, outcome: StoreOutcome): Promise<void> {
    if (this.#batch !== undefined && !hasRoom(this.#batch, size)) {
      this.#flush();
      await this.#room();
    }
    this.#batch ??= {
      files: [],
      outcomes: [],
      slab: await this.#slabs.take(this.#options),
      bytes: 0,
    };
    const { files, outcomes, slab, bytes } = this.#batch;
    const data = new Uint8Array(slab, bytes, size);
    let at = 0;
    for await (const part of contents) {
      data.set(part, at);
      at += part.length;
    }
    files.push(data);
    outcomes.push(outcome);
    this.#batch.bytes += size;
  }

  #flush(): void {
    const batch = this.#batch;
    if (batch === undefined) return;
    this.#batch = undefined;
    const { files, outcomes, slab } = batch;
    const stored = this.#blobService.putMany(files, this.#options);
    this.#track(
      stored
        .finally(() => this.#slabs.give(slab))
        .then((digests) => {
          for (const [i, outcome] of outcomes.entries()) outcome.resolve(digests[i]!);
        }),
      outcomes,
    );
  }

  async #large({ contents }: IncomingFile, outcome: StoreOutcome): Promise<void> {
    await this.#room();
    const writer = this.#blobService.openWriter(this.#options);
    try {
      for await (const data of contents) await writer.write(data);
    } catch (error) {
      await writer[Symbol.asyncDispose]();
      throw error;
    }
    // Not awaited: the next file is read while this one becomes durable.
    const closed = writer.close().finally(() => writer[Symbol.asyncDispose]());
    this.#track(
      closed.then((digest) => outcome.resolve(digest)),
      [outcome],
    );
  }

  /** Waits until there is room for another batch or large file. */
  async #room(): Promise<void> {
    while (this.#inFlight.size >= MAX_IN_FLIGHT) await Promise.race(this.#inFlight);
  }

  #track(work: Promise<void>, outcomes: readonly StoreOutcome[]): void {
    const settled: Promise<void> = work
      .catch((reason) => {
        this.#failure ??= { reason };
        for (const outcome of outcomes) outcome.reject(reason);
      })
      .finally(() => this.#inFlight.delete(settled));
    this.#inFlight.add(settled);
  }

  #throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.reason;
  }
}

function hasRoom({ files, bytes }: Batch, size: number): boolean {
  return files.length < BATCH_FILES && bytes + size <= BATCH_BYTES;
}
