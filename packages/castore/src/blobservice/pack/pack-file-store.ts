import type { AbortOptions } from "../../bytes/abort-options.ts";
import type { SourceFile } from "../../disk/source-file.ts";
import type { B3Digest } from "../../model/digest.ts";
import { type Task, taskOf } from "../../worker/lane.ts";
import { laneCount, runTask } from "../../worker/lanes.ts";
import type { SlabPool } from "../../worker/slab-pool.ts";
import { SlabFileBatch } from "../file-batch.ts";
import {
  FEW_FILES,
  type FileBatch,
  type FileStore,
  type LargeFile,
  type PutFileOptions,
} from "../file-store.ts";
import { type Piece, PiecewiseFile } from "../piecewise-file.ts";
import { readPiece } from "../read-piece.ts";
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

/** How many batches of small files, and pieces of large ones, are under way for each lane, besides one for this thread. */
const BATCHES_PER_LANE = 2;

/**
 * How long chunks may wait for more while files are read, in milliseconds. Nobody waits for them before the last file was
 * read; each commit costs a wait for the disk, and writes pages of the index that the next one writes again.
 */
const PATIENCE_MS = 1000;

/** The result for the last piece of a file that is not empty, where that piece is. */
const NOTHING: Piece["prepared"] = Promise.resolve({ list: new Uint8Array(0), stored: [] });

/** Has lanes read files of the local file system and prepare them, and hands their records on to be committed. */
export class PackFileStore implements FileStore {
  readonly parallelism: number;
  readonly batchBytes: number;
  readonly #ingest: PackIngest;
  readonly #commits: GroupCommit;
  readonly #isReadable: (digest: B3Digest) => boolean;

  /** The slabs of small files, which are given back in the order of a tree; those of large ones must not wait for that. */
  readonly #smallSlabs: SlabPool;
  readonly #pieceSlabs: SlabPool;
  /** How many batches and pieces are under way. */
  #underWay = 0;

  /** @param isReadable tells whether a blob is stored */
  constructor(ingest: PackIngest, commits: GroupCommit, isReadable: (digest: B3Digest) => boolean) {
    this.#ingest = ingest;
    this.#commits = commits;
    this.#isReadable = isReadable;
    this.batchBytes = ingest.contentsBytes;
    this.parallelism = laneCount() * BATCHES_PER_LANE + 1;
    const kept = 2 * this.parallelism; // both use slabs of one length
    this.#smallSlabs = ingest.newSlabs(this.parallelism, kept);
    this.#pieceSlabs = ingest.newSlabs(this.parallelism, kept);
  }

  async putSmall(
    paths: readonly string[],
    options: PutFileOptions & { isNext?: boolean } = {},
  ): Promise<FileBatch> {
    options.signal?.throwIfAborted();
    const slabs = this.#smallSlabs;
    const { store, contentsBytes: recordsAt } = this.#ingest;
    const slab = await slabs.take(options);
    using _end = this.#begin();
    try {
      const task = { store, slab, recordsAt, paths };
      const { files, ...records } = await runTask(PREPARE_FILES, task, {
        here: prepareFiles,
        isNext: options.isNext || paths.length <= FEW_FILES,
      });
      options.onNewBytes?.(records.newBytes);
      const parts = await this.#ingest.commit(slab, records, {
        check: checkOf(options),
        patienceMs: PATIENCE_MS,
      });
      const stored = Promise.all(parts).then(() => undefined);
      return new SlabFileBatch(slab, files, { stored, release: () => slabs.give(slab) });
    } catch (error) {
      slabs.give(slab);
      throw error;
    }
  }

  async putLarge(file: SourceFile, options?: PutFileOptions): Promise<LargeFile> {
    let isNew = false;
    const onNewBytes = (bytes: number) => {
      isNew ||= bytes > 0;
      options?.onNewBytes?.(bytes);
    };
    return new PiecewiseFile(file, {
      readPiece: (position) => this.#readPiece(file.fd, position, { ...options, onNewBytes }),
      commitBlob: async (digest, chunks) => {
        if (!isNew && this.#isReadable(digest)) return; // and so durable
        const records = { digest, list: storedList(digest, chunks) };
        const check = checkOf(options);
        const added = await this.#commits.addBlobs({ records, count: 1, check });
        await added.stored;
      },
    });
  }

  /** Reads and cuts a piece, and has a lane prepare it. */
  async #readPiece(fd: number, position: number, options?: PutFileOptions): Promise<Piece> {
    const slabs = this.#pieceSlabs;
    const slab = await slabs.take(options);
    try {
      const { store, contentsBytes } = this.#ingest;
      const { averageChunkSize } = store;
      const { ends, ...read } = await readPiece({
        fd,
        position,
        slab,
        contentsBytes,
        averageChunkSize,
      });
      const isEmptyRest = position > 0 && read.length === 0;
      const prepared = isEmptyRest ? NOTHING : this.#preparePiece(slab, ends, options);
      prepared.catch(() => undefined); // handled where it is awaited
      const contents = new Uint8Array(slab, 0, read.length);
      return { ...read, contents, prepared, release: slabs.giveAfter(slab, prepared) };
    } catch (error) {
      slabs.give(slab);
      throw error;
    }
  }

  async #preparePiece(
    slab: SharedArrayBuffer,
    ends: readonly number[],
    options?: PutFileOptions,
  ): Piece["prepared"] {
    using _end = this.#begin();
    const { store, contentsBytes: recordsAt } = this.#ingest;
    const task = { store, slab, recordsAt, ends };
    const { list, ...records } = await runTask(PREPARE_PIECE, task, { here: preparePiece });
    options?.onNewBytes?.(records.newBytes);
    const stored = await this.#ingest.commit(slab, records, {
      check: checkOf(options),
      patienceMs: PATIENCE_MS,
    });
    return { list, stored };
  }

  /** Notes that something is under way until the result is disposed of. The last of them has everything committed. */
  #begin(): Disposable {
    this.#underWay += 1;
    return {
      [Symbol.dispose]: () => {
        this.#underWay -= 1;
        if (this.#underWay === 0) this.#commits.flush();
      },
    };
  }
}

function checkOf(options?: AbortOptions): () => void {
  return () => options?.signal?.throwIfAborted();
}
