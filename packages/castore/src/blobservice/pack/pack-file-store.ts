import type { AbortOptions } from "../../bytes/abort-options.ts";
import type { SourceFile } from "../../disk/source-file.ts";
import { type Task, taskOf } from "../../worker/lane.ts";
import { laneCount, runTask } from "../../worker/lanes.ts";
import type { SlabPool } from "../../worker/slab-pool.ts";
import { SlabFileBatch } from "../file-batch.ts";
import type { FileBatch, FileStore, LargeFile, PutFileOptions } from "../file-store.ts";
import { type Piece, type PieceRead, PiecewiseFile } from "../piecewise-file.ts";
import { storedList } from "./format.ts";
import type { GroupCommit } from "./group-commit.ts";
import type { PackIngest } from "./pack-ingest.ts";
import type * as lane from "./prepare.ts";
import { prepareFiles, preparePiece } from "./prepare.ts";

const PREPARE_FILES: Task<typeof lane.prepareFiles> = taskOf(
  import.meta.url,
  "prepare",
  "prepareFiles",
);
const PREPARE_PIECE: Task<typeof lane.preparePiece> = taskOf(
  import.meta.url,
  "prepare",
  "preparePiece",
);

/** How many batches of small files, and pieces of large ones, are under way for each lane, and for this thread. */
const BATCHES_PER_THREAD = 2;

/** Most files that are read in this thread: handing so few to a lane takes longer. */
const FEW_FILES = 8;

/** Has lanes read files of the local file system and prepare them, and hands their records on to be committed. */
export class PackFileStore implements FileStore {
  readonly parallelism: number;
  readonly batchBytes: number;
  readonly #ingest: PackIngest;
  readonly #commits: GroupCommit;

  /** The slabs of small files, which are given back in the order of a tree; those of large ones must not wait for that. */
  readonly #smallSlabs: SlabPool;
  readonly #pieceSlabs: SlabPool;

  constructor(ingest: PackIngest, commits: GroupCommit) {
    this.#ingest = ingest;
    this.#commits = commits;
    this.batchBytes = ingest.contentsBytes;
    this.parallelism = (laneCount() + 1) * BATCHES_PER_THREAD;
    this.#smallSlabs = ingest.newSlabs(this.parallelism);
    this.#pieceSlabs = ingest.newSlabs(this.parallelism);
  }

  async putSmall(
    paths: readonly string[],
    options: PutFileOptions & { isNext?: boolean } = {},
  ): Promise<FileBatch> {
    options.signal?.throwIfAborted();
    const slabs = this.#smallSlabs;
    const { store, contentsBytes: recordsAt } = this.#ingest;
    const slab = await slabs.take(options);
    try {
      const task = { store, slab, recordsAt, paths };
      const { files, ...records } = await runTask(PREPARE_FILES, task, {
        here: prepareFiles,
        isNext: options.isNext || paths.length <= FEW_FILES,
      });
      options.onNewBytes?.(records.newBytes);
      const parts = await this.#ingest.commit(slab, records, checkOf(options));
      const stored = Promise.all(parts).then(() => undefined);
      return new SlabFileBatch(slab, files, { stored, release: () => slabs.give(slab) });
    } catch (error) {
      slabs.give(slab);
      throw error;
    }
  }

  async putLarge(file: SourceFile, options?: PutFileOptions): Promise<LargeFile> {
    return new PiecewiseFile(file, {
      readPiece: (position) => this.#readPiece(file.fd, position, options),
      commitBlob: async (digest, chunks) => {
        const records = { digest, list: storedList(digest, chunks) };
        const check = checkOf(options);
        const added = await this.#commits.addBlobs({ records, count: 1, check });
        await added.stored;
      },
    });
  }

  /** Reads a piece in a lane. Resolves as soon as it was read and cut. */
  async #readPiece(fd: number, position: number, options?: PutFileOptions): Promise<Piece> {
    const slabs = this.#pieceSlabs;
    const { store, contentsBytes: recordsAt } = this.#ingest;
    const slab = await slabs.take(options);
    const { promise, resolve, reject } = Promise.withResolvers<PieceRead>();
    const task = { store, slab, recordsAt, fd, position };
    const prepare = async () => {
      const { list, ...records } = await runTask(PREPARE_PIECE, task, {
        onNews: resolve,
        here: preparePiece,
      });
      options?.onNewBytes?.(records.newBytes);
      return { list, stored: await this.#ingest.commit(slab, records, checkOf(options)) };
    };
    const prepared = prepare();
    prepared.catch(reject);
    const release = slabs.giveAfter(slab, prepared);
    try {
      const read = await promise;
      const contents = new Uint8Array(slab, 0, read.length);
      return { ...read, contents, prepared, release };
    } catch (error) {
      release();
      throw error;
    }
  }
}

function checkOf(options?: AbortOptions): () => void {
  return () => options?.signal?.throwIfAborted();
}
