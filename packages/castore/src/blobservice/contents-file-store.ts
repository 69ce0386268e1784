import type { AbortOptions } from "../bytes/abort-options.ts";
import type { SourceFile } from "../disk/source-file.ts";
import { type Blake3Hasher, blake3 } from "../hash/blake3.ts";
import { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { ATTEMPTS } from "../policy/retry.ts";
import { type Task, taskOf } from "../worker/lane.ts";
import { laneCount, runTask } from "../worker/lanes.ts";
import { SlabPool } from "../worker/slab-pool.ts";
import type { BlobService, BlobWriter } from "./blob-service.ts";
import { type FilesRead, SlabFileBatch } from "./file-batch.ts";
import { FEW_FILES, type FileBatch, type FileStore, type LargeFile } from "./file-store.ts";
import { readFiles } from "./read-files.ts";

const READ_FILES: Task<typeof readFiles> = taskOf(import.meta.url, "read-files", "readFiles");

/** Length of a batch in bytes. */
const BATCH_BYTES = 1024 * 1024;

/** A digest that no blob has. */
const NO_BLOB = B3Digest.fromBytes(new Uint8Array(B3Digest.LENGTH));

/** Stores files in any blob service: lanes read them, and the service takes their contents. */
export class ContentsFileStore implements FileStore {
  readonly parallelism: number = (laneCount() + 1) * 2;
  readonly batchBytes: number = BATCH_BYTES;
  readonly #blobService: BlobService;
  readonly #slabs = new SlabPool(BATCH_BYTES, this.parallelism);

  constructor(blobService: BlobService) {
    this.#blobService = blobService;
  }

  async putSmall(
    paths: readonly string[],
    options: AbortOptions & { isNext?: boolean } = {},
  ): Promise<FileBatch> {
    const slab = await this.#slabs.take(options);
    let files: FilesRead;
    try {
      const task = { paths, slab, contentsBytes: BATCH_BYTES };
      const isNext = options.isNext || paths.length <= FEW_FILES;
      files = await runTask(READ_FILES, task, { here: readFiles, isNext });
    } catch (error) {
      this.#slabs.give(slab);
      throw error;
    }
    const stored = Promise.resolve().then(async () => {
      const read = paths.keys().filter((i) => batch.outcome(i) === "read");
      const contents = Array.from(read, (i) => batch.contents(i));
      if (contents.length > 0) await this.#blobService.putMany(contents, options);
    });
    const release = this.#slabs.giveAfter(slab, stored);
    const batch = new SlabFileBatch(slab, files, { stored, release });
    return batch;
  }

  async putLarge(file: SourceFile, options?: AbortOptions): Promise<LargeFile> {
    return new StreamedFile(file, this.#blobService, options);
  }
}

/**
 * A large file that streams into a blob service. Where the service becomes unavailable meanwhile, as does a daemon that
 * restarts, it is asked something else, which waits as long as the service itself waits; the file is then read again.
 */
class StreamedFile implements LargeFile {
  readonly #file: SourceFile;
  readonly #blobService: BlobService;
  readonly #options: AbortOptions | undefined;
  readonly #hasher: Blake3Hasher = blake3.createHasher();
  #writer: BlobWriter | undefined;
  #attempt = 1;

  constructor(file: SourceFile, blobService: BlobService, options?: AbortOptions) {
    this.#file = file;
    this.#blobService = blobService;
    this.#options = options;
  }

  async *pieces(): AsyncGenerator<Uint8Array> {
    let isRead = false;
    let shown = 0;
    try {
      while (!isRead) {
        let position = 0;
        this.#writer = this.#blobService.openWriter(this.#options);
        try {
          for await (const data of this.#file.read()) {
            if (position === shown) {
              this.#hasher.update(data);
              shown += data.length;
              yield data;
            }
            await this.#writer.write(data);
            position += data.length;
          }
          isRead = true;
        } catch (error) {
          await this.#awaitService(error);
        }
      }
    } finally {
      if (!isRead) {
        this.#hasher.digest(); // an unfinished one keeps memory
        await this.#dispose();
      }
    }
  }

  finish(): { digest: B3Digest; stored: Promise<void> } {
    const digest = B3Digest.fromBytes(this.#hasher.digest());
    const stored = this.#close().finally(() => this.#dispose());
    stored.catch(() => undefined); // handled where it is awaited
    return { digest, stored };
  }

  async #close(): Promise<void> {
    for (let isWritten = true; ; isWritten = false) {
      try {
        if (!isWritten) await this.#writeAgain();
        await this.#writer!.close();
        return;
      } catch (error) {
        await this.#awaitService(error);
      }
    }
  }

  async #writeAgain(): Promise<void> {
    this.#writer = this.#blobService.openWriter(this.#options);
    for await (const data of this.#file.read()) await this.#writer.write(data);
  }

  /** Waits for the service after an error that may pass; throws any other. */
  async #awaitService(error: unknown): Promise<void> {
    await this.#writer?.[Symbol.asyncDispose]();
    const mayPass = error instanceof CastoreError && error.code === "unavailable";
    if (!mayPass || this.#attempt === ATTEMPTS || this.#options?.signal?.aborted) throw error;
    this.#attempt += 1;
    await this.#blobService.has(NO_BLOB, this.#options);
  }

  async #dispose(): Promise<void> {
    await this.#writer?.[Symbol.asyncDispose]();
    this.#file[Symbol.dispose]();
  }
}
