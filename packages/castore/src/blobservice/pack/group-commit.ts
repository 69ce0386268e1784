import type { B3Digest } from "../../digest.ts";
import { CastoreError } from "../../errors.ts";
import type { ChunkMeta } from "../blob-service.ts";
import type { ChunkIndex, ChunkLocation, IndexChanges, OpenPack } from "./chunk-index.ts";
import type { StoredChunk } from "./codec.ts";
import { blobRecord, chunkHeader, HEADER_LENGTH } from "./format.ts";
import type { PackFiles } from "./pack-files.ts";

/** A chunk that waits to be stored. */
export interface ChunkJob {
  readonly digest: B3Digest;
  readonly size: number;
  readonly stored: StoredChunk;
  /** Called once: without an argument when it is durable, with the error when it is not. */
  readonly settle: (failure?: { error: unknown }) => void;
}

/** A blob that waits to become readable. Its chunks are stored, or wait before it. */
export interface BlobJob {
  readonly digest: B3Digest;
  readonly chunks: readonly ChunkMeta[];
  /** Throws if the blob is not wanted any more, or a chunk of it could not be stored. */
  readonly check: () => void;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** A change of the index alone. */
interface IndexJob {
  readonly change: (changes: IndexChanges) => void;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Stores chunks and blobs in groups: whatever waits when one commit ends goes into the next one, which
 * is one write, one fdatasync and one transaction. The transaction is begun first: it keeps other
 * processes from writing to the same pack, and holds the committed length of the pack, so that what a
 * crash leaves behind that length is overwritten by the next commit.
 */
export class GroupCommit {
  readonly #index: ChunkIndex;
  readonly #files: PackFiles;
  readonly #maxPackSize: number;
  #chunks: ChunkJob[] = [];
  #blobs: BlobJob[] = [];
  #indexJobs: IndexJob[] = [];
  #running: Promise<void> | undefined;

  /** @param maxPackSize length in bytes at which a pack is full */
  constructor(index: ChunkIndex, files: PackFiles, maxPackSize: number) {
    this.#index = index;
    this.#files = files;
    this.#maxPackSize = maxPackSize;
  }

  addChunk(job: ChunkJob): void {
    this.#chunks.push(job);
    this.#running ??= this.#run();
  }

  addBlob(job: BlobJob): void {
    this.#blobs.push(job);
    this.#running ??= this.#run();
  }

  /** Changes the index, and resolves when that is durable. */
  changeIndex(change: IndexJob["change"]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#indexJobs.push({ change, resolve, reject });
      this.#running ??= this.#run();
    });
  }

  /** Resolves when nothing waits any more. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  async #run(): Promise<void> {
    await Promise.resolve(); // whoever is in the middle of adding several gets them into one commit
    while (this.#chunks.length + this.#blobs.length + this.#indexJobs.length > 0) {
      const [chunks, blobs, indexJobs] = [this.#chunks, this.#blobs, this.#indexJobs];
      [this.#chunks, this.#blobs, this.#indexJobs] = [[], [], []];
      await this.#commit(chunks, blobs, indexJobs);
    }
    this.#running = undefined;
  }

  async #commit(
    chunks: readonly ChunkJob[],
    blobs: readonly BlobJob[],
    indexJobs: readonly IndexJob[],
  ): Promise<void> {
    let finished: readonly BlobJob[] = [];
    const begun: PackWrite[] = [];
    // What is behind the committed length is of no account, but it takes room, which may be what lacks.
    const undo = async () => {
      for (const { pack, from } of begun) await this.#files.truncate(pack, from);
    };
    try {
      await this.#index.change(async (changes) => {
        for (const { change } of indexJobs) change(changes);
        const fresh = chunks.filter(({ digest }) => !changes.isKnown(digest));
        const known = new Set(fresh.map(({ digest }) => digest.hex));
        finished = blobs.filter((job) => isComplete(job, changes, known));
        const layout = new PackLayout(changes.openPack(), this.#maxPackSize);
        const located = fresh.map((job) => [job, layout.addChunk(job)] as const);
        for (const { digest, chunks } of finished) {
          if (chunks.length === 1 || changes.hasBlob(digest)) continue;
          layout.addRecord(blobRecord(digest, chunks));
        }
        for (const write of layout.writes) {
          begun.push(write);
          await this.#files.write(write.pack, write.from, write.parts);
        }
        for (const [{ digest }, location] of located) changes.addChunk(digest, location);
        for (const { digest, chunks } of finished) changes.addBlob(digest, chunks);
        for (const { pack, size } of layout.writes) changes.setPack({ pack, size });
      }, undo);
    } catch (error) {
      for (const { settle } of chunks) settle({ error });
      for (const { reject } of [...finished, ...indexJobs]) reject(error);
      return;
    }
    for (const { settle } of chunks) settle();
    for (const { resolve } of [...finished, ...indexJobs]) resolve();
  }
}

/** Whether a blob can be committed now; one that cannot be at all is told so. */
function isComplete(job: BlobJob, changes: IndexChanges, fresh: ReadonlySet<string>): boolean {
  try {
    job.check();
    for (const { digest } of job.chunks) {
      if (fresh.has(digest.hex) || changes.isKnown(digest)) continue;
      // It was found damaged, and so forgotten, after the writer had seen that it was there.
      throw new CastoreError(
        "aborted",
        `Cannot put blob ${job.digest}: chunk ${digest} was lost meanwhile, put the blob again`,
      );
    }
    return true;
  } catch (error) {
    job.reject(error);
    return false;
  }
}

/** What is written to one pack in one commit. */
interface PackWrite {
  readonly pack: number;
  /** Where the first part goes. */
  readonly from: number;
  size: number;
  readonly parts: Uint8Array[];
}

/** Finds a place for records behind what is committed. */
class PackLayout {
  readonly writes: PackWrite[] = [];
  readonly #maxPackSize: number;
  readonly #open: OpenPack | undefined;

  constructor(open: OpenPack | undefined, maxPackSize: number) {
    this.#open = open;
    this.#maxPackSize = maxPackSize;
  }

  addChunk({ digest, size, stored: { codec, payload } }: ChunkJob): ChunkLocation {
    const storedSize = payload.length;
    const header = chunkHeader(digest, { codec, storedSize, size });
    const { pack, offset } = this.addRecord(header, payload);
    return { pack, offset: offset + HEADER_LENGTH, storedSize, size, codec };
  }

  addRecord(...parts: readonly Uint8Array[]): { pack: number; offset: number } {
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    let write = this.writes.at(-1);
    const open = write ?? this.#open;
    if (open === undefined || (open.size > 0 && open.size + length > this.#maxPackSize)) {
      write = this.#begin((open?.pack ?? 0) + 1, 0);
    } else {
      write ??= this.#begin(open.pack, open.size);
    }
    const offset = write.size;
    write.parts.push(...parts);
    write.size += length;
    return { pack: write.pack, offset };
  }

  #begin(pack: number, from: number): PackWrite {
    const write: PackWrite = { pack, from, size: from, parts: [] };
    this.writes.push(write);
    return write;
  }
}
