import type { AbortOptions } from "../../bytes/abort-options.ts";
import { concatBytes, copyBytes } from "../../bytes/byte-string.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { type Task, taskOf } from "../../worker/lane.ts";
import { runTask } from "../../worker/lanes.ts";
import type { BlobReader, ReadOptions } from "../blob-service.ts";
import { ChunkList, type ChunkMeta } from "../chunk-list.ts";
import { ChunkedBlobReader, type FetchChunk, readChunked } from "../chunked-reader.ts";
import type { ChunkIndex, ChunkLocation } from "./chunk-index.ts";
import type { GroupCommit } from "./group-commit.ts";
import { packPath } from "./pack-files.ts";
import type { Lost } from "./pack-writer.ts";
import {
  lengthAs,
  packLocations,
  type ReadChunks,
  type ReadChunksTask,
  readChunks,
} from "./read-chunks.ts";
import { readChunks as readInLane } from "./read-thread.ts";

const READ_CHUNKS: Task<typeof readInLane> = taskOf(import.meta.url, "read-thread", "readChunks");

/**
 * Longest read, and longest chunk, that the calling thread reads itself, in bytes: a trip to another thread takes about
 * as long.
 */
const INLINE_READ = 64 * 1024;
const INLINE_CHUNK = 512 * 1024;

/** A chunk that is to be read. */
export interface WantedChunk {
  readonly digest: B3Digest;
  readonly location: ChunkLocation;
}

/** Where chunks are read: in a lane, or this thread where the lanes have enough to do; or in this thread at once. */
type Place = "pool" | "here";

/** Reads chunks and lists of them, and forgets what is damaged, so that putting it again heals. */
export class PackReader {
  readonly #folder: string;
  readonly #index: ChunkIndex;
  readonly #commits: GroupCommit;
  readonly #onCorrupt: (message: string) => void;

  /**
   * @param options.folder the folder of the store
   * @param options.commits forgets what is damaged
   * @param options.onCorrupt is called with a message about it
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

  /** Opens a blob, or a chunk of a blob, as `BlobService.open` says. */
  async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    const chunks = await this.#listOf(digest, options);
    return chunks && new PackBlobReader(digest, chunks, this.#fetchFrom);
  }

  /** Reads a blob, or a chunk of a blob, as `BlobService.read` says. */
  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const chunks = await this.#listOf(digest, options);
    if (chunks === undefined) return undefined;
    const place = chunks.size <= INLINE_READ ? "here" : "pool";
    return readChunked(chunks, this.#fetchFrom(place), options);
  }

  /**
   * Reads chunks together.
   *
   * @returns the contents of each, verified; an error for one that is damaged, and now forgotten
   */
  async readChunks(
    chunks: readonly WantedChunk[],
    place: Place = "pool",
  ): Promise<readonly (Uint8Array | CastoreError)[]> {
    const isShort = chunks.length === 1 && chunks[0]!.location.size <= INLINE_CHUNK;
    return await this.#readAs("contents", chunks, isShort ? "here" : place);
  }

  /** Reads payloads together as they are stored, and verifies them. Returns as {@link readChunks} does. */
  async readPayloads(
    chunks: readonly WantedChunk[],
  ): Promise<readonly (Uint8Array | CastoreError)[]> {
    return await this.#readAs("payloads", chunks, "pool");
  }

  /** Returns the chunks of a blob; `undefined` if there is none. */
  async #listOf(digest: B3Digest, options?: AbortOptions): Promise<ChunkList | undefined> {
    const chunk = this.#index.findChunk(digest);
    if (chunk !== undefined) {
      return ChunkList.of(chunk.size > 0 ? [{ digest, size: chunk.size }] : []);
    }
    const found = await this.#index.findBlob(digest, options);
    if (found !== "damaged") return found;
    const lost = { blob: copyBytes(digest.bytes) };
    throw await this.#lose(lost, `blob ${digest}`, "its list of chunks is damaged");
  }

  /** Returns a function that reads the chunks of a blob in one place. */
  readonly #fetchFrom = (place: Place): FetchChunk => {
    return async (chunk, options) => {
      const location = await this.find(chunk);
      if (location instanceof CastoreError) throw location;
      const isHere = place === "here" && chunk.size <= INLINE_CHUNK;
      const wanted = [{ digest: chunk.digest, location }];
      const [contents] = await this.#readAs("contents", wanted, isHere ? "here" : "pool");
      options?.signal?.throwIfAborted();
      if (contents instanceof CastoreError) throw contents;
      return contents!;
    };
  };

  /** Finds a listed chunk; returns an error if it is absent or of another length, and forgets it. */
  async find({ digest, size }: ChunkMeta): Promise<ChunkLocation | CastoreError> {
    const location = this.#index.findChunk(digest);
    if (location?.size === size) return location;
    const reason = location
      ? `it has ${location.size} bytes, listed are ${size}`
      : "it is not in the index";
    return await this.#loseChunk(digest, reason, location);
  }

  async #readAs(
    as: ReadChunksTask["as"],
    chunks: readonly WantedChunk[],
    place: Place,
  ): Promise<readonly (Uint8Array | CastoreError)[]> {
    const { pieces, damaged } = await readLocated(this.#folder, chunks, { as, place });
    const errors = new Map<number, CastoreError>();
    for (const [i, what] of damaged) errors.set(i, await this.lose(chunks[i]!, what));
    return pieces.map((piece, i) => piece ?? errors.get(i)!);
  }

  /** Forgets a chunk that cannot be read. Returns the error to throw. */
  async lose(chunk: WantedChunk, what: "missing" | "damaged"): Promise<CastoreError> {
    const { digest, location } = chunk;
    const where = `"${packPath(this.#folder, location.pack)}" at ${location.offset}`;
    return await this.#loseChunk(digest, `${where} is ${what}`, location);
  }

  #loseChunk(digest: B3Digest, reason: string, location?: ChunkLocation): Promise<CastoreError> {
    return this.#lose({ chunk: copyBytes(digest.bytes), location }, `chunk ${digest}`, reason);
  }

  /** Forgets a chunk or list that is lost, and reports it. Returns the error to throw. */
  async #lose(lost: Lost, what: string, reason: string): Promise<CastoreError> {
    const message = `Cannot read ${what}: ${reason}`;
    this.#onCorrupt(message);
    await this.#commits
      .forget(lost)
      .catch((error: Error) => this.#onCorrupt(`Cannot forget ${what}: ${error.message}`));
    return new CastoreError("data_loss", message);
  }
}

/** A reader whose short reads are done at once, and whose long ones by threads. */
class PackBlobReader extends ChunkedBlobReader {
  readonly #short: ChunkedBlobReader;

  constructor(digest: B3Digest, chunks: ChunkList, fetchFrom: (place: Place) => FetchChunk) {
    super(digest, chunks, fetchFrom("pool"));
    this.#short = new ChunkedBlobReader(digest, chunks, fetchFrom("here"));
  }

  override async read(offset: number, length: number, options?: AbortOptions): Promise<Uint8Array> {
    if (length > INLINE_READ) return await super.read(offset, length, options);
    return await this.#short.read(offset, length, options);
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await super[Symbol.asyncDispose]();
    await this.#short[Symbol.asyncDispose]();
  }
}

/**
 * Reads chunks of a store, in the calling thread or the pool.
 *
 * @returns contents or payload of each chunk, in memory that they share and nobody else uses; nothing of one that is damaged
 */
export async function readLocated(
  folder: string,
  chunks: readonly WantedChunk[],
  { place, as }: Pick<ReadChunksTask, "as"> & { place: Place },
): Promise<{ pieces: (Uint8Array | undefined)[] } & Pick<ReadChunks, "damaged">> {
  const locations = chunks.map(({ location }) => location);
  const digests = copyBytes(concatBytes(chunks.map(({ digest }) => digest.bytes)));
  const packs = new Set(locations.map(({ pack }) => pack));
  const paths = new Map(Array.from(packs, (pack) => [pack, packPath(folder, pack)]));
  const task = { locations: packLocations(locations), digests, paths, as };
  const { bytes, damaged } =
    place === "here" ? readChunks(task) : await runTask(READ_CHUNKS, task, { here: readInLane });
  let at = 0;
  const pieces = locations.map((location, i) => {
    const piece = new Uint8Array(bytes.buffer, bytes.byteOffset + at, lengthAs(as, location));
    at += piece.length;
    return damaged.has(i) ? undefined : piece;
  });
  return { pieces, damaged };
}
