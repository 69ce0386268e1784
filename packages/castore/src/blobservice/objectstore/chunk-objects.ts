import { setImmediate as yieldToEvents } from "node:timers/promises";
import { promisify } from "node:util";
import { constants, zstdDecompress } from "node:zlib";
import { limitFunction } from "p-limit";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { collectBytes, takeAtMost } from "../../bytes/byte-string.ts";
import { lruCache } from "../../bytes/lru-cache.ts";
import { compressToFrame, contentSizeOf } from "../../compression/zstd-frame.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_CHUNK_BYTES } from "../../model/limits.ts";
import type { DamagedObjects } from "../../objectstore/damaged-objects.ts";
import { objectKey } from "../../objectstore/object-key.ts";
import type { ObjectStore } from "../../objectstore/object-store.ts";
import type { ChunkList } from "../chunk-list.ts";

/** Why there is no chunk. One that is `longer` than asked for may be whole nevertheless. */
export type ChunkLoss = "missing" | "damaged" | "longer";

/** How many frames are written, and how many are read, at the same time. Each takes up to some megabytes. */
const CODERS = { concurrency: 4 };

const compress = limitFunction(compressToFrame, CODERS);
const decompress = limitFunction(
  promisify<Uint8Array, object, Buffer<ArrayBuffer>>(zstdDecompress),
  CODERS,
);

/** How many times longer a chunk is than a frame that does not state its size, at a guess. */
const USUAL_RATIO = 4;

/** The longest header of a frame, in bytes. */
const HEADER_BYTES = 18;

/** How many chunks are remembered that were found damaged. */
const KNOWN_LOST = 4096;

/** How many digests are compared before other events have their turn. */
const DIGESTS_PER_TURN = 4096;

/** Keeps chunks in an object store, each a frame of zstd at `chunks/b3/<4 hex>/<hex>`. */
export class ChunkObjects {
  readonly #store: ObjectStore;
  readonly #damaged: DamagedObjects;
  readonly #level: number;
  /** Chunks that were found damaged, and not stored since by this process. */
  readonly #lost = lruCache<string, B3Digest>(KNOWN_LOST);

  constructor(store: ObjectStore, damaged: DamagedObjects, zstdLevel: number) {
    this.#store = store;
    this.#damaged = damaged;
    this.#level = zstdLevel;
  }

  /** Tells whether there is a chunk that is not known to be damaged. */
  has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    return this.#damaged.has(chunkKey(digest), options);
  }

  /**
   * Reads a chunk, verified, or tells why there is none.
   *
   * @param maxSize how long it may be, in bytes: of a longer one no more than that is ever in memory
   */
  async get(
    digest: B3Digest,
    maxSize: number,
    options?: AbortOptions,
  ): Promise<Uint8Array<ArrayBuffer> | ChunkLoss> {
    const parse = (contents: AsyncIterable<Uint8Array>) => parseChunk(digest, contents, maxSize);
    const found = await this.#damaged.read(chunkKey(digest), parse, options);
    if (found === "damaged") this.#lost.set(digest.key, digest);
    return found;
  }

  /** Returns a chunk of a list that was found damaged not long ago, and is still absent; `undefined` if there is none. */
  async findLost(chunks: ChunkList, options?: AbortOptions): Promise<B3Digest | undefined> {
    if (this.#lost.size === 0) return undefined;
    for (let i = 0; i < chunks.length; i++) {
      if (i > 0 && i % DIGESTS_PER_TURN === 0) await yieldToEvents();
      const lost = this.#lost.get(chunks.digestAt(i).key);
      if (lost === undefined) continue;
      if (!(await this.has(lost, options))) return lost;
      this.#lost.delete(lost.key);
    }
    return undefined;
  }

  /** Returns the length of a chunk, as its frame states it; `undefined` if it is absent. */
  async sizeOf(digest: B3Digest, options?: AbortOptions): Promise<number | undefined> {
    const range = { length: HEADER_BYTES, signal: options?.signal };
    const header = await this.#store.get(chunkKey(digest), range);
    if (header === undefined) return undefined;
    const stated = contentSizeOf(await collectBytes(header));
    if (stated !== undefined) return stated;
    const data = await this.get(digest, MAX_CHUNK_BYTES, options);
    return data instanceof Uint8Array ? data.length : undefined;
  }

  /** Returns the length of the frame of a chunk; `undefined` if it is absent. */
  async frameSize(digest: B3Digest, options?: AbortOptions): Promise<number | undefined> {
    return (await this.#store.head(chunkKey(digest), options))?.size;
  }

  /** Reads the frame of a chunk, if it states its content size; `undefined` for another one, or none. Not verified. */
  async getFrame(
    digest: B3Digest,
    size: number,
    options?: AbortOptions,
  ): Promise<{ frame: Uint8Array; size: number } | undefined> {
    const object = await this.#store.get(chunkKey(digest), { signal: options?.signal });
    const frame = object && (await takeAtMost(object, maxFrameSize(size)));
    const found = frame && contentSizeOf(frame);
    return frame === undefined || found === undefined ? undefined : { frame, size: found };
  }

  /** Stores a chunk, whose bytes the caller leaves alone until it settles. One that is there is replaced. */
  async put(digest: B3Digest, data: Uint8Array, options?: AbortOptions): Promise<void> {
    await this.putFrame(digest, await compress(data, this.#level), options);
  }

  /** Like {@link put}, for a chunk that is compressed already, into a frame that states its size. It is not verified. */
  async putFrame(digest: B3Digest, frame: Uint8Array, options?: AbortOptions): Promise<void> {
    await this.#store.put(chunkKey(digest), frame, options);
    this.#lost.delete(digest.key);
  }

  /** Like {@link put}, but one that is there is neither compressed nor sent. */
  async putIfAbsent(digest: B3Digest, data: Uint8Array, options?: AbortOptions): Promise<void> {
    if (!(await this.has(digest, options))) await this.put(digest, data, options);
  }
}

/** @throws CastoreError `data_loss` for what is no frame of the chunk */
async function parseChunk(
  digest: B3Digest,
  contents: AsyncIterable<Uint8Array>,
  maxSize: number,
): Promise<Uint8Array<ArrayBuffer> | "longer"> {
  const longer = (): "longer" => {
    if (maxSize < MAX_CHUNK_BYTES) return "longer";
    throw new CastoreError("data_loss", `it is longer than ${MAX_CHUNK_BYTES} bytes`);
  };
  const frame = await takeAtMost(contents, maxFrameSize(maxSize));
  if (frame === undefined) return longer();
  let data: Buffer<ArrayBuffer>;
  try {
    data = await decompress(frame, {
      maxOutputLength: Math.max(maxSize, 1),
      chunkSize: outputSize(frame, maxSize),
    });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ERR_BUFFER_TOO_LARGE") return longer();
    throw new CastoreError("data_loss", `it cannot be decompressed: ${message}`, { cause });
  }
  const found = blake3Digest(data);
  if (found.equals(digest)) return data;
  throw new CastoreError("data_loss", `expected chunk ${digest}, found ${found}`);
}

function chunkKey(digest: B3Digest): string {
  return objectKey("chunks", digest);
}

/** Returns the length of the buffers that output comes in, in bytes: one is enough for a frame that states its size. */
function outputSize(frame: Uint8Array, maxSize: number): number {
  const size = contentSizeOf(frame) ?? frame.length * USUAL_RATIO;
  return Math.max(Math.min(size, maxSize), constants.Z_MIN_CHUNK);
}

/** Returns the length of the longest frame of a chunk: what does not get shorter takes a little more, in whatever blocks. */
function maxFrameSize(size: number): number {
  return size + (size >>> 6) + 1024;
}
