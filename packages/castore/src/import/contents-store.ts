import type { BlobService } from "../blobservice/blob-service.ts";
import type { B3Digest } from "../digest.ts";
import { CastoreError } from "../errors.ts";
import type { FileNode } from "../node.ts";
import type { AbortOptions } from "../options.ts";
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
  readonly executable: boolean;
  /** The contents, in pieces that may be lent until the next one is asked for. */
  readonly contents: AsyncIterable<Uint8Array>;
}

/** Files that go to the store together. */
interface Batch {
  readonly files: Uint8Array[];
  /** What they are read to, one after the other. */
  readonly slab: SharedArrayBuffer;
  bytes: number;
  readonly stored: PromiseWithResolvers<readonly B3Digest[]>;
}

/**
 * Stores the contents of files that come one after the other, as in an archive: small ones many at a time, and none
 * is waited for before the next one is read. Holds some megabytes at most.
 *
 * Disposing of it waits until nothing is on its way any more. What was not flushed then is not stored.
 */
export class ContentsStore implements AsyncDisposable {
  readonly #blobService: BlobService;
  readonly #options: AbortOptions;
  readonly #inFlight = new Set<Promise<unknown>>();
  readonly #slabs = new SlabPool(BATCH_BYTES, MAX_IN_FLIGHT);
  #batch: Batch | undefined;

  constructor(blobService: BlobService, options: AbortOptions = {}) {
    this.#blobService = blobService;
    this.#options = options;
  }

  /**
   * Takes a file, one at a time. Resolves when its contents were read.
   *
   * @returns what gives its node, which may be long until that is durable, and rejects with whatever the service
   *   rejects with. One who never calls it hears of no failure
   * @throws whatever the contents and the service throw
   */
  async add(file: IncomingFile): Promise<() => Promise<FileNode>> {
    const { size, executable } = file;
    const digest = size > SMALL_FILE ? await this.#large(file) : await this.#small(file);
    return async () => ({ type: "file", digest: await digest(), size: BigInt(size), executable });
  }

  /** Sends off what waits for others to go together with: there will be no more. */
  flush(): void {
    const batch = this.#batch;
    if (batch === undefined) return;
    this.#batch = undefined;
    const { files, slab, stored } = batch;
    const storing = this.#blobService.putMany(files, this.#options).then((digests) => {
      this.#slabs.give(slab);
      return digests;
    });
    this.#track(storing.then(stored.resolve, stored.reject));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#batch?.stored.reject(new CastoreError("aborted", "Cannot store files: they ended early"));
    await Promise.allSettled(this.#inFlight);
  }

  async #small({ size, contents }: IncomingFile): Promise<() => Promise<B3Digest>> {
    if (this.#batch !== undefined && !hasRoom(this.#batch, size)) {
      this.flush();
      await this.#room();
    }
    this.#batch ??= this.#openBatch();
    const { files, slab, bytes, stored } = this.#batch;
    const data = new Uint8Array(slab, bytes, size);
    let at = 0;
    for await (const part of contents) {
      data.set(part, at);
      at += part.length;
    }
    const i = files.push(data) - 1;
    this.#batch.bytes += size;
    return async () => (await stored.promise)[i]!;
  }

  #openBatch(): Batch {
    const stored = Promise.withResolvers<readonly B3Digest[]>();
    stored.promise.catch(() => undefined); // told to whoever awaits a digest
    return { files: [], slab: this.#slabs.take(), bytes: 0, stored };
  }

  async #large({ contents }: IncomingFile): Promise<() => Promise<B3Digest>> {
    await this.#room();
    const writer = this.#blobService.openWriter(this.#options);
    try {
      for await (const data of contents) await writer.write(data);
    } catch (error) {
      await writer[Symbol.asyncDispose]();
      throw error;
    }
    // Not awaited: the next file is read while this one becomes durable.
    const closed = writer.close();
    this.#track(closed.finally(() => writer[Symbol.asyncDispose]()));
    return () => closed;
  }

  /** Waits until less is on its way. */
  async #room(): Promise<void> {
    while (this.#inFlight.size >= MAX_IN_FLIGHT) await Promise.race(this.#inFlight);
  }

  #track(work: Promise<unknown>): void {
    const settled: Promise<unknown> = work
      .catch(() => undefined) // told to whoever awaits a digest
      .finally(() => this.#inFlight.delete(settled));
    this.#inFlight.add(settled);
  }
}

function hasRoom({ files, bytes }: Batch, size: number): boolean {
  return files.length < BATCH_FILES && bytes + size <= BATCH_BYTES;
}
