import type { BlobService } from "../blobservice/blob-service.ts";
import type { ChunkMeta } from "../blobservice/chunk-list.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { ClosureSpool } from "../directoryservice/closure-spool.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import { encodeDirectory } from "../directoryservice/encoded-directory.ts";
import { walkClosure } from "../directoryservice/walk-closure.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError, hasCode } from "../model/errors.ts";
import type { Node } from "../model/node.ts";
import { copyAbsentBlob, refusal } from "./copy-blob.ts";
import { sendFrames } from "./send-frames.ts";

/** Where a tree is, or is copied to. */
export interface ClosureServices {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
}

/** How far a copy is. */
export interface CopyProgress {
  /** Directories that were found in the source. */
  directories: number;
  /** Different blobs that were found in the source. */
  blobs: number;
  /** How many bytes these have. */
  bytes: number;
  /** Those of the blobs that the target lacked, and has now. */
  copiedBlobs: number;
  /** How many bytes those have. */
  copiedBytes: number;
}

/** Options of {@link copyClosure}. */
export interface CopyClosureOptions extends AbortOptions {
  /**
   * Looks for every blob and every directory also where the target has the tree, and makes up for those that it lost.
   * Default: false, a tree that the target has is taken to be whole.
   */
  repair?: boolean | undefined;
  /** Is told running totals. Default: nobody. */
  onProgress?: ((progress: CopyProgress) => void) | undefined;
}

/** How many blobs are looked up together. */
const BLOBS_PER_LOOKUP = 1024;

/** How many directories are looked up at the same time. */
const DIRECTORIES_PER_LOOKUP = 32;

/** A blob of up to this many bytes is copied together with others. */
const SMALL_BLOB = 128 * 1024;

/** How many bytes, and how many blobs, are copied together. */
const BATCH_BYTES = 1024 * 1024;
const BLOBS_PER_BATCH = 512;

/** How many batches and large blobs are copied at the same time. */
const CONCURRENCY = 6;

/**
 * Copies everything that a root node leads to, as far as the target lacks it: first the blobs, then the
 * directories, the root last. No blob is held whole but small ones, some megabytes in all; of the directories, what
 * {@link walkClosure} holds.
 *
 * @returns what was found and copied; nothing was looked for if the target had the root directory
 * @throws CastoreError `not_found` if the source lacks the root, or a blob; `data_loss` if something is damaged
 *   there; whatever the services throw. The target has none of the directories then, blobs may be there
 */
export async function copyClosure(
  from: ClosureServices,
  to: ClosureServices,
  root: Node,
  options: CopyClosureOptions = {},
): Promise<CopyProgress> {
  options.signal?.throwIfAborted();
  await using copy = new ClosureCopy(from, to, options);
  return await copy.run(root);
}

class ClosureCopy implements AsyncDisposable {
  readonly #from: ClosureServices;
  readonly #to: ClosureServices;
  readonly #options: CopyClosureOptions;
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #spool = new ClosureSpool();
  readonly #workers: Promise<void>[] = [];
  #progress: CopyProgress = { directories: 0, blobs: 0, bytes: 0, copiedBlobs: 0, copiedBytes: 0 };

  constructor(from: ClosureServices, to: ClosureServices, options: CopyClosureOptions) {
    this.#from = from;
    this.#to = to;
    this.#options = options;
    const { signal } = options;
    this.#signal = signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal;
  }

  async run(root: Node): Promise<CopyProgress> {
    const isDirectory = root.type === "directory";
    const target = this.#to.directoryService;
    const isThere = isDirectory && (await target.get(root.digest, { signal: this.#signal }));
    if (isThere && !this.#options.repair) return this.#progress;
    const batches = this.#batches(root);
    // When one fails, the iteration ends, and the others with it.
    for (let i = 0; i < CONCURRENCY; i++) this.#workers.push(this.#copyBatches(batches));
    await Promise.all(this.#workers);
    if (isThere) await this.#repairDirectories(root.digest);
    else if (isDirectory) await this.#putTree(root.digest);
    return this.#progress;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new CastoreError("aborted", "The copy has ended"));
    await Promise.allSettled(this.#workers);
    this.#spool[Symbol.dispose]();
  }

  /** The blobs that the target lacks, small ones together. */
  async *#batches(root: Node): AsyncGenerator<readonly ChunkMeta[]> {
    let batch: ChunkMeta[] = [];
    let batchBytes = 0;
    for await (const blob of this.#missingBlobs(root)) {
      if (blob.size > SMALL_BLOB) {
        yield [blob];
        continue;
      }
      if (batchBytes + blob.size > BATCH_BYTES || batch.length === BLOBS_PER_BATCH) {
        yield batch;
        [batch, batchBytes] = [[], 0];
      }
      batch.push(blob);
      batchBytes += blob.size;
    }
    if (batch.length > 0) yield batch;
  }

  /** The blobs that the target lacks. Keeps the directories that are met. */
  async *#missingBlobs(root: Node): AsyncGenerator<ChunkMeta> {
    const options = { signal: this.#signal };
    const { blobService } = this.#to;
    const lookUp = async (blobs: readonly ChunkMeta[]) => {
      const digests = blobs.map(({ digest }) => digest);
      const has = await blobService.hasMany(digests, options);
      return blobs.filter((_, i) => !has[i]);
    };
    let found: ChunkMeta[] = [];
    for await (const item of walkClosure(this.#from.directoryService, root, options)) {
      if (item.type === "directory") {
        this.#spool.add(encodeDirectory(item.directory));
        this.#advance({ directories: 1 });
        continue;
      }
      this.#advance({ blobs: 1, bytes: Number(item.size) });
      found.push({ digest: item.digest, size: Number(item.size) });
      if (found.length < BLOBS_PER_LOOKUP) continue;
      yield* await lookUp(found);
      found = [];
    }
    yield* await lookUp(found);
  }

  async #copyBatches(batches: AsyncIterable<readonly ChunkMeta[]>): Promise<void> {
    for await (const batch of batches) {
      if (batch[0]!.size > SMALL_BLOB) await this.#copyLarge(batch[0]!);
      else await this.#copySmall(batch);
    }
  }

  async #copySmall(batch: readonly ChunkMeta[]): Promise<void> {
    const options = { signal: this.#signal };
    const bytes = batch.reduce((sum, { size }) => sum + size, 0);
    const source = this.#from.blobService;
    const hasEmpty = batch.some(({ size }) => size === 0);
    if (!hasEmpty && (await sendFrames(source, this.#to.blobService, batch, options))) {
      this.#advance({ copiedBlobs: batch.length, copiedBytes: bytes });
      return;
    }
    const found = await source.readMany(batch, options);
    const contents = found.filter((data) => data !== undefined);
    if (contents.length < batch.length) {
      const { digest, size } = batch[found.indexOf(undefined)]!;
      const isThere = await source.has(digest, options);
      throw isThere
        ? refusal("data_loss", digest, `it is damaged, or not of ${size} bytes`)
        : refusal("not_found", digest, "it is missing");
    }
    const stored = await this.#to.blobService.putMany(contents, options);
    for (const [i, { digest }] of batch.entries()) {
      if (!stored[i]!.equals(digest)) throw refusal("data_loss", digest, `it is ${stored[i]}`);
    }
    this.#advance({ copiedBlobs: batch.length, copiedBytes: bytes });
  }

  async #copyLarge(blob: ChunkMeta): Promise<void> {
    const [from, to] = [this.#from.blobService, this.#to.blobService];
    await copyAbsentBlob(from, to, blob, { signal: this.#signal });
    this.#advance({ copiedBlobs: 1, copiedBytes: blob.size });
  }

  async #putTree(root: B3Digest): Promise<void> {
    await using putter = this.#to.directoryService.openPutter({ signal: this.#signal });
    for (const directory of this.#spool.leavesFirst(root)) await putter.put(directory);
    await putter.close();
  }

  /**
   * Puts a tree whose root the target has, after those parts of it that the target lost, each with everything below as
   * a tree of its own: what is below a directory that is there, not every service looks at when a tree is put.
   */
  async #repairDirectories(root: B3Digest): Promise<void> {
    await this.#meetDamage(root);
    let batch: B3Digest[] = [];
    for (const directory of this.#spool.rootFirst(root)) {
      batch.push(encodeDirectory(directory).digest);
      if (batch.length < DIRECTORIES_PER_LOOKUP) continue;
      await this.#repairMissing(batch);
      batch = [];
    }
    await this.#repairMissing(batch);
    await this.#putTree(root);
  }

  /** Reads a tree as a whole, which the target may keep beside its directories: what it finds damaged can be put. */
  async #meetDamage(root: B3Digest): Promise<void> {
    const { directoryService } = this.#to;
    try {
      for await (const _ of directoryService.getRecursive(root, { signal: this.#signal }));
    } catch (error) {
      if (!hasCode(error, "data_loss")) throw error;
    }
  }

  async #repairMissing(digests: readonly B3Digest[]): Promise<void> {
    const target = this.#to.directoryService;
    const options = { signal: this.#signal };
    for (const [i, directory] of (await target.getMany(digests, options)).entries()) {
      // It may have been put meanwhile, below another.
      const isMissing = !directory && !(await target.get(digests[i]!, options));
      if (isMissing) await this.#putTree(digests[i]!);
    }
  }

  #advance(step: Partial<CopyProgress>): void {
    const progress = { ...this.#progress };
    for (const [key, count] of Object.entries(step)) progress[key as keyof CopyProgress] += count;
    this.#progress = progress;
    this.#options.onProgress?.(progress);
  }
}
