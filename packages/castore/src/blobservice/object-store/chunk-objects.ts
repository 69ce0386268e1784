import { promisify } from "node:util";
import { constants, zstdCompress, zstdDecompress } from "node:zlib";
import { limitFunction } from "p-limit";
import { collectAtMost } from "../../bytes.ts";
import { B3Digest } from "../../digest.ts";
import { CastoreError } from "../../errors.ts";
import { objectKey } from "../../object-store/digest-key.ts";
import type { ObjectStore } from "../../object-store/object-store.ts";
import type { AbortOptions } from "../../options.ts";

/** Chunks are never longer, whoever cut them: twice the largest average that is offered. In bytes. */
export const MAX_CHUNK_BYTES: number = 8 * 1024 * 1024;

/** Why there is no chunk. One that is `longer` than asked for may be whole nevertheless. */
export type ChunkLoss = "missing" | "damaged" | "longer";

/** How many frames are written, and how many are read, at the same time. Each takes up to some megabytes. */
const CODERS = { concurrency: 4 };

const compress = limitFunction(promisify<Uint8Array, object, Buffer>(zstdCompress), CODERS);
const decompress = limitFunction(
  promisify<Uint8Array, object, Buffer<ArrayBuffer>>(zstdDecompress),
  CODERS,
);

/** How many times longer a chunk is than its frame, at a guess that costs little if it is wrong. */
const USUAL_RATIO = 4;

/**
 * The chunks in an object store, each a frame of zstd at `chunks/b3/<4 hex>/<hex>`. One that was found lost is
 * looked at again whenever it is asked for: it may have been put again.
 */
export class ChunkObjects {
  readonly #store: ObjectStore;
  readonly #level: number;
  readonly #onCorrupt: (message: string) => void;
  /** Digests of chunks that were found damaged, or missing from a blob. */
  readonly #lost = new Set<string>();

  /** @param options.onCorrupt is told of each chunk that is lost */
  constructor(
    store: ObjectStore,
    options: { zstdLevel: number; onCorrupt: (message: string) => void },
  ) {
    this.#store = store;
    this.#level = options.zstdLevel;
    this.#onCorrupt = options.onCorrupt;
  }

  /** Whether a chunk was found lost, and has not been put or read since. */
  isLost(digest: B3Digest): boolean {
    return this.#lost.has(digest.hex);
  }

  /** Notes that a chunk cannot be read, so that putting it again heals. Gives the error that says so. */
  lose(digest: B3Digest, loss: ChunkLoss): CastoreError {
    const what = loss === "longer" ? "longer than expected" : loss;
    const where = `object "${chunkKey(digest)}" in ${this.#store.name}`;
    const message = `Cannot read chunk ${digest}: ${where} is ${what}`;
    if (!this.#lost.has(digest.hex)) this.#onCorrupt(message);
    this.#lost.add(digest.hex);
    return new CastoreError("data_loss", message);
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    options?.signal?.throwIfAborted();
    if (this.isLost(digest)) {
      return (await this.get(digest, MAX_CHUNK_BYTES, options)) instanceof Uint8Array;
    }
    return (await this.#store.head(chunkKey(digest), options)) !== undefined;
  }

  /**
   * A chunk, verified, or why there is none.
   *
   * @param maxSize how long it may be, in bytes: of a longer one no more than that is ever in memory
   */
  async get(
    digest: B3Digest,
    maxSize: number,
    options?: AbortOptions,
  ): Promise<Uint8Array<ArrayBuffer> | ChunkLoss> {
    const object = await this.#store.get(chunkKey(digest), { signal: options?.signal });
    if (object === undefined) return "missing";
    const frame = await collectAtMost(object, maxFrameSize(maxSize));
    if (frame === undefined) return "longer";
    try {
      const data = await decompress(frame, {
        maxOutputLength: Math.max(maxSize, 1),
        chunkSize: outputSize(Math.min(maxSize, frame.length * USUAL_RATIO)),
      });
      if (!B3Digest.of(data).equals(digest)) return "damaged";
      this.#lost.delete(digest.hex);
      return data;
    } catch (error) {
      // Whatever else is wrong with it, these are not the bytes that were put.
      const { code } = error as NodeJS.ErrnoException;
      return code === "ERR_BUFFER_TOO_LARGE" ? "longer" : "damaged";
    }
  }

  /** Stores a chunk, whose bytes the caller leaves alone until it resolves. One that is there is replaced. */
  async put(digest: B3Digest, data: Uint8Array, options?: AbortOptions): Promise<void> {
    const frame = await compress(data, {
      params: { [constants.ZSTD_c_compressionLevel]: this.#level },
      // With its length in the frame, and one buffer for all of it, both ways are faster.
      pledgedSrcSize: data.length,
      chunkSize: outputSize(data.length),
    });
    await this.#store.put(chunkKey(digest), frame, options);
    this.#lost.delete(digest.hex);
  }

  /** Like {@link put}, but one that is there is neither compressed nor sent. */
  async putIfAbsent(digest: B3Digest, data: Uint8Array, options?: AbortOptions): Promise<void> {
    if (!(await this.has(digest, options))) await this.put(digest, data, options);
  }
}

function chunkKey(digest: B3Digest): string {
  return objectKey("chunks", digest);
}

/** Length of the buffers that output comes in, in bytes: one is enough for most. */
function outputSize(length: number): number {
  return Math.max(length, constants.Z_MIN_CHUNK);
}

/** The longest frame of a chunk, in bytes: what does not get shorter takes a little more, in whatever blocks. */
function maxFrameSize(size: number): number {
  return size + (size >>> 6) + 1024;
}
