import { promisify } from "node:util";
import { constants, zstdCompress, zstdDecompress } from "node:zlib";
import { limitFunction } from "p-limit";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { takeAtMost } from "../../bytes/byte-string.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import type { DamageMarks } from "../../objectstore/damage-marks.ts";
import { objectKey } from "../../objectstore/object-key.ts";
import type { ObjectStore } from "../../objectstore/object-store.ts";

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

/** What chunks and lists of chunks in an object store share. */
export interface BlobObjects {
  readonly store: ObjectStore;
  readonly marks: DamageMarks;
  /** Is told of each object that is lost. */
  readonly onCorrupt: (message: string) => void;
}

/**
 * The chunks in an object store, each a frame of zstd at `chunks/b3/<4 hex>/<hex>`. One that was found lost is
 * marked: it counts as absent until it was put again, or read after all.
 */
export class ChunkObjects {
  readonly #store: ObjectStore;
  readonly #marks: DamageMarks;
  readonly #level: number;
  readonly #onCorrupt: (message: string) => void;

  constructor({ store, marks, onCorrupt }: BlobObjects, zstdLevel: number) {
    this.#store = store;
    this.#marks = marks;
    this.#level = zstdLevel;
    this.#onCorrupt = onCorrupt;
  }

  /** Whether a chunk is known to be lost, without asking the store. */
  isLost(digest: B3Digest): boolean {
    return this.#marks.isKnown(chunkKey(digest));
  }

  /** Whether a chunk was found lost, by whatever process, and has not been put since. */
  isMarked(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    return this.#marks.has(chunkKey(digest), options);
  }

  /** Notes that a chunk cannot be read, so that putting it again heals. Gives the error that says so. */
  async lose(digest: B3Digest, loss: ChunkLoss, options?: AbortOptions): Promise<CastoreError> {
    const what = loss === "longer" ? "longer than expected" : loss;
    const key = chunkKey(digest);
    const message = `Cannot read chunk ${digest}: object "${key}" in ${this.#store.name} is ${what}`;
    if (!this.#marks.isKnown(key)) this.#onCorrupt(message);
    await this.#marks.mark(key, options);
    return new CastoreError("data_loss", message);
  }

  /** Notes that a blob is no chunk, so that none of its digest can be lost. */
  async forget(digest: B3Digest, options?: AbortOptions): Promise<void> {
    await this.#marks.clear(chunkKey(digest), options);
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    if (await this.isMarked(digest, options)) return false;
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
    const frame = await takeAtMost(object, maxFrameSize(maxSize));
    if (frame === undefined) return "longer";
    try {
      const data = await decompress(frame, {
        maxOutputLength: Math.max(maxSize, 1),
        chunkSize: outputSize(Math.min(maxSize, frame.length * USUAL_RATIO)),
      });
      if (!blake3Digest(data).equals(digest)) return "damaged";
      await this.#marks.clear(chunkKey(digest), options);
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
    await this.#marks.clear(chunkKey(digest), options);
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
