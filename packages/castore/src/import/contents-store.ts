import type { BlobService } from "../blobservice/blob-service.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { SlabPool } from "../worker/slab-pool.ts";

/** A file of up to this many bytes goes to the store together with others. */
const SMALL_FILE = 128 * 1024;

/** How many bytes, and how many files, go together. */
const BATCH_BYTES = 1024 * 1024;
const BATCH_FILES = 512;

/** How many batches and large files are on their way to the store while the next ones are read. */
const MAX_IN_FLIGHT = 8;

/** A file whose contents come now. */
export interface IncomingFile {
  /** Length of the contents in bytes. */
  readonly size: number;
  /** The contents, in pieces that may be lent until the next one is asked for. */
  readonly contents: AsyncIterable<Uint8Array>;
}

/** What becomes of the contents of a file. One of the two is called, once. */
export interface StoreOutcome {
  /** They are durable. */
  resolve(digest: B3Digest): void;
  /** They are not, for whatever reason the service rejects with. */
  reject(reason: unknown): void;
}

/** Files that go to the store together. */
interface Batch {
  readonly files: Uint8Array[];
  readonly outcomes: StoreOutcome[];
  /** What they are read to, one after the other. */
  readonly slab: SharedArrayBuffer;
  bytes: number;
}

/**
 * Stores the contents of files that come one after the other, as in an archive: small ones many at a time, and none
 * is waited for before the next one is read. Holds some megabytes at most.
 *
 * Disposing of it waits until nothing is on its way any more. What waits for others to go together with is then not stored.
 */
export class ContentsStore implements AsyncDisposable {
  readonly #blobService: BlobService;
  readonly #options: AbortOptions;
  readonly #inFlight = new Set<Promise<void>>();
  readonly #slabs = new SlabPool(BATCH_BYTES, MAX_IN_FLIGHT);
  #batch: Batch | undefined;
  #failure: { readonly reason: unknown } | undefined;

  constructor(blobService: BlobService, options: AbortOptions = {}) {
    this.#blobService = blobService;
    this.#options = options;
  }

  /**
   * Takes a file, one at a time. Resolves when its contents were read.
   *
   * @param outcome is told when they are durable, which may be long after. A callback for each: for many small files,
   *   promises would take more memory than contents
   * @throws whatever the contents throw, and the service of this file or one before it
   */
  async add(file: IncomingFile, outcome: StoreOutcome): Promise<void> {
    this.#throwIfFailed();
    await (file.size > SMALL_FILE ? this.#large(file, outcome) : this.#small(file, outcome));
  }

  /**
   * Sends off what waits for others to go together with, and resolves when all files are durable. To be called once,
   * last.
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
    const reason = new CastoreError("aborted", "Cannot store files: they ended early");
    for (const outcome of batch?.outcomes ?? []) outcome.reject(reason);
    await Promise.all(this.#inFlight);
  }

  async #small({ size, contents }: IncomingFile, outcome: StoreOutcome): Promise<void> {
    if (this.#batch !== undefined && !hasRoom(this.#batch, size)) {
      this.#flush();
      await this.#room();
    }
    this.#batch ??= { files: [], outcomes: [], slab: this.#slabs.take(), bytes: 0 };
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
    this.#track(
      this.#blobService.putMany(files, this.#options).then((digests) => {
        this.#slabs.give(slab);
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

  /** Waits until less is on its way. */
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
