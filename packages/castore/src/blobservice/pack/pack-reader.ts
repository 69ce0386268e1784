import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { concatBytes, copyBytes } from "../../bytes/byte-string.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { errorOf } from "../../worker/failure.ts";
import { runTask, type Task, taskOf } from "../../worker/pool.ts";
import type { BlobReader, ReadOptions } from "../blob-service.ts";
import { ChunkList, type ChunkMeta } from "../chunk-list.ts";
import { ChunkedBlobReader, type FetchChunk, readChunked } from "../chunked-reader.ts";
import type { ChunkIndex, ChunkLocation } from "./chunk-index.ts";
import type { GroupCommit } from "./group-commit.ts";
import { packPath } from "./pack-files.ts";
import type { Lost } from "./pack-writer.ts";
import type { readChunks } from "./read-chunks.ts";

/** Of how many blobs it is remembered that their lists were checked. */
const MAX_CHECKED = 4096;

/** After how many chunks of a list other events get their turn. */
const CHECKS_PER_TURN = 1000;

const READ_CHUNKS: Task<typeof readChunks> = taskOf(import.meta.url, "read-chunks", "readChunks");

/** A chunk that is to be read. */
export interface WantedChunk {
  readonly digest: B3Digest;
  readonly location: ChunkLocation;
}

/** Chunks that were read together. */
export interface ReadBatch {
  /** The contents of each, verified; an error for one that is damaged, and now forgotten. */
  readonly contents: readonly (Uint8Array | CastoreError | undefined)[];
}

/** Reads chunks and lists of them, and forgets what is damaged, so that putting it again heals. */
export class PackReader {
  readonly #folder: string;
  readonly #index: ChunkIndex;
  readonly #commits: GroupCommit;
  readonly #onCorrupt: (message: string) => void;
  /** Blobs whose chunks have the lengths that are listed, by digest in hexadecimal. */
  readonly #checked = new Set<string>();

  /**
   * @param options.folder the folder of the store
   * @param options.commits forgets what is damaged
   * @param options.onCorrupt is told of it
   */
  constructor(options: {
    folder: string;
    index: ChunkIndex;
    commits: GroupCommit;
    onCorrupt: (message: string) => void;
  }) {
    this.#folder = options.folder;
    this.#index = options.index;
    this.#commits = options.commits;
    this.#onCorrupt = options.onCorrupt;
  }

  /**
   * The chunks of a blob that has two or more; `undefined` if there is none of that digest.
   *
   * @throws CastoreError `data_loss` if one is absent or has another length than listed
   */
  async #chunksOf(digest: B3Digest, options?: AbortOptions): Promise<ChunkList | undefined> {
    const chunks = this.#index.findBlob(digest);
    if (chunks === undefined || this.#checked.has(digest.hex)) return chunks;
    for (let i = 0; i < chunks.length; i++) {
      const chunk = chunks.at(i);
      const location = this.#index.findChunk(chunk.digest);
      if (location?.size !== chunk.size) {
        throw await this.#loseBlob(digest, chunks, chunk, location);
      }
      if (i % CHECKS_PER_TURN === CHECKS_PER_TURN - 1) await yieldToEvents();
      options?.signal?.throwIfAborted();
    }
    if (this.#checked.size === MAX_CHECKED) this.#checked.clear();
    this.#checked.add(digest.hex);
    return chunks;
  }

  /** Opens a blob, or a chunk of a blob, as `BlobService.open` says. */
  async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    const chunks = this.#uncut(digest) ?? (await this.#chunksOf(digest, options));
    return chunks && new ChunkedBlobReader(digest, chunks, this.#fetchOf(digest, chunks));
  }

  /** Reads a blob, or a chunk of a blob, as `BlobService.read` says. */
  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    // Where a part begins depends on the lengths of all chunks before it, which are not read.
    const isPart = (options?.offset ?? 0) > 0;
    const chunks =
      this.#uncut(digest) ??
      (await (isPart ? this.#chunksOf(digest, options) : this.#index.findBlob(digest)));
    return chunks && readChunked(chunks, this.#fetchOf(digest, chunks), options);
  }

  /** The list of a blob that is not cut. */
  #uncut(digest: B3Digest): ChunkList | undefined {
    const chunk = this.#index.findChunk(digest);
    if (chunk === undefined) return undefined;
    return ChunkList.of(chunk.size > 0 ? [{ digest, size: chunk.size }] : []);
  }

  /** How a chunk of a blob is read. */
  #fetchOf(digest: B3Digest, chunks: ChunkList): FetchChunk {
    return async (chunk) => {
      const location = this.#index.findChunk(chunk.digest);
      if (location?.size !== chunk.size) {
        throw await this.#loseBlob(digest, chunks, chunk, location);
      }
      const [contents] = (await this.readChunks([{ digest: chunk.digest, location }])).contents;
      if (contents instanceof CastoreError) throw contents;
      return contents!;
    };
  }

  /** Reads chunks together. */
  async readChunks(chunks: readonly WantedChunk[]): Promise<ReadBatch> {
    const { bytes, damaged } = await readLocated(this.#folder, chunks);
    const errors = new Map<number, CastoreError>();
    for (const [i, what] of damaged) {
      const { digest, location } = chunks[i]!;
      const where = `"${packPath(this.#folder, location.pack)}" at ${location.offset}`;
      errors.set(i, await this.#loseChunk(digest, `${where} is ${what}`, location));
    }
    let at = 0;
    const contents = chunks.map(({ location }, i) => {
      const data = bytes.subarray(at, at + location.size);
      at += location.size;
      return errors.get(i) ?? data;
    });
    return { contents };
  }

  /** @param location where the chunk is that is not what the list of the blob says, if it is anywhere */
  #loseBlob(
    digest: B3Digest,
    chunks: ChunkList,
    chunk: ChunkMeta,
    location: ChunkLocation | undefined,
  ): Promise<CastoreError> {
    if (location === undefined) return this.#loseChunk(chunk.digest, "it is not in the index");
    const lost = { blob: copyBytes(digest.bytes), list: copyBytes(chunks.bytes) };
    const reason = `chunk ${chunk.digest} has ${location.size} bytes, listed are ${chunk.size}`;
    return this.#lose(lost, `blob ${digest}`, reason);
  }

  #loseChunk(digest: B3Digest, reason: string, location?: ChunkLocation): Promise<CastoreError> {
    return this.#lose({ chunk: copyBytes(digest.bytes), location }, `chunk ${digest}`, reason);
  }

  /** Forgets what cannot be read any more, and tells of it. */
  async #lose(lost: Lost, what: string, reason: string): Promise<CastoreError> {
    const message = `Cannot read ${what}: ${reason}`;
    this.#onCorrupt(message);
    await this.#commits
      .forget(lost)
      .catch((error: Error) => this.#onCorrupt(`Cannot forget ${what}: ${error.message}`));
    return new CastoreError("data_loss", message);
  }
}

/** Has a thread read and verify chunks: their contents, one after the other, and what is wrong with which. */
export async function readLocated(
  folder: string,
  chunks: readonly WantedChunk[],
): Promise<{ bytes: Uint8Array; damaged: ReadonlyMap<number, "missing" | "damaged"> }> {
  const locations = chunks.map(({ location }) => location);
  const digests = copyBytes(concatBytes(chunks.map(({ digest }) => digest.bytes)));
  const paths = new Map(locations.map(({ pack }) => [pack, packPath(folder, pack)]));
  const task = { locations, digests, paths };
  const { contents: bytes, damaged, failure } = await runTask(READ_CHUNKS, task);
  if (failure !== undefined) throw errorOf(failure);
  return { bytes, damaged };
}
