import { unlessAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { type TierOptions, Tiers } from "../cache/tiers.ts";
import { WriteThrough } from "../cache/write-through.ts";
import type { Outboard } from "../hash/outboard.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { resolveRange } from "../model/range.ts";
import { BlobFills } from "./blob-fills.ts";
import type {
  BlobReader,
  BlobService,
  BlobStat,
  BlobWriter,
  PutListOptions,
  ReadOptions,
} from "./blob-service.ts";
import type { ChunkList, ChunkMeta } from "./chunk-list.ts";
import { ChunkedBlobReader, readChunked } from "./chunked-reader.ts";
import { framesByCompressing } from "./frames.ts";
import { readWhole, statOneByOne } from "./one-by-one.ts";
import { putListByReading } from "./put-list.ts";
import { SharedBatches } from "./shared-batches.ts";
import type { OutboardSource } from "./verified-range.ts";
import { PieceHasher } from "./verify-blob.ts";

/** How many bytes of chunks and small blobs are on their way into the near half at the same time. */
const KEEP_BYTES = 16 * 1024 * 1024;

/**
 * Blobs in two halves: a near one, such as a disk, and a far one, such as a bucket.
 *
 * What only the far half has is kept in the near one when it is read: a blob that is read whole, once however
 * many read it at the same time; of a blob that is read in part, the chunks that the part lies in; what `readMany`
 * gives. No reader waits for that, nor for another one. A copy goes on when its readers stop, at its own pace, and
 * reads the rest of the blob by itself where that is slower than theirs.
 *
 * How much is copied at the same time is bounded: 64 blobs, of which 4 that nobody reads along with, with 16 MiB in
 * memory, and 16 MiB of chunks and small blobs. What is read beyond that comes from the far half all the same, and is
 * kept when it is read again.
 *
 * A near half that fails is warned of and fails no read. Nor does one that is silent, see
 * {@link TierOptions.nearReadTimeoutMs}.
 *
 * Disposing of it gives up what is not kept within half a second; the halves stay open.
 */
export class CombinedBlobService implements BlobService, OutboardSource {
  readonly #tiers: Tiers<BlobService>;
  readonly #fills: BlobFills;
  readonly #batches: SharedBatches;
  #keptBytes = 0;

  constructor(options: TierOptions<BlobService>) {
    const tiers = new Tiers("CombinedBlobService", options);
    this.#tiers = tiers;
    this.#fills = new BlobFills(tiers, {
      read: (digest, options) => this.#openNear(digest, options),
      hasMany: async (digests, options) => (await this.#hasNear(digests, options)) ?? [],
    });
    this.#batches = new SharedBatches(options.far, (blobs) => this.#keep(blobs), tiers.closing);
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    const [found] = await this.hasMany([digest], options);
    return found!;
  }

  statMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (BlobStat | undefined)[]> {
    return statOneByOne(this, digests, options);
  }

  async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    options?.signal?.throwIfAborted();
    const near = await this.#tiers.tryNear(
      `look up blob ${digest} in`,
      (near, options) => chunksIn(near, digest, options),
      options,
    );
    const chunks = near ?? (await chunksIn(this.#tiers.far, digest, options));
    return chunks && new ChunkedBlobReader(digest, chunks, this.#readChunk);
  }

  async read(
    digest: B3Digest,
    options: ReadOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const { start, end } = resolveRange(Number.MAX_SAFE_INTEGER, options);
    options.signal?.throwIfAborted();
    const near = await this.#openNear(digest, options);
    if (near !== undefined) return this.#withFallback(near, digest, start, end, options);
    return await this.#readFar(digest, start, end, options);
  }

  async hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    options?.signal?.throwIfAborted();
    const near = await this.#hasNear(digests, options);
    const missing = digests.filter((_, i) => !near?.[i]);
    const far = missing.length > 0 ? await this.#tiers.far.hasMany(missing, options) : [];
    let next = 0;
    return digests.map((_, i) => near?.[i] || far[next++]!);
  }

  async readMany(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    options?.signal?.throwIfAborted();
    const near = await this.#tiers.tryNear(
      "read blobs from",
      (near, options) => near.readMany(blobs, options),
      options,
    );
    const missing = blobs.filter((_, i) => near?.[i] === undefined);
    const far = missing.length > 0 ? await this.#batches.read(missing, options) : [];
    let next = 0;
    return blobs.map((_, i) => near?.[i] ?? far[next++]);
  }

  async putMany(
    blobs: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly B3Digest[]> {
    const { near, far, mode } = this.#tiers;
    if (mode === "near-only") return await near.putMany(blobs, options);
    if (mode === "far-only") return await far.putMany(blobs, options);
    const digests = await far.putMany(blobs, options);
    const store = (near: BlobService, options: AbortOptions) => near.putMany(blobs, options);
    await this.#tiers.storeNear("put blobs into", store, options);
    return digests;
  }

  putList(digest: B3Digest, chunks: ChunkList, options?: PutListOptions): Promise<void> {
    return putListByReading(this, digest, chunks, options);
  }

  frames(chunks: ChunkList, options?: AbortOptions): AsyncIterable<Uint8Array> {
    return framesByCompressing(this, chunks, options);
  }

  openWriter(options?: AbortOptions): BlobWriter {
    const { near, far, mode } = this.#tiers;
    if (mode === "near-only") return near.openWriter(options);
    if (mode === "far-only") return far.openWriter(options);
    const open = (half: BlobService, options?: AbortOptions) => half.openWriter(options);
    return new WriteThroughBlob(this.#tiers, open, options);
  }

  /** That of the near half, if it has one; else that of the far one, whose failure counts only where it is needed. */
  async outboard(digest: B3Digest, options?: AbortOptions): Promise<Outboard | undefined> {
    options?.signal?.throwIfAborted();
    const near = await this.#tiers.tryNear(
      `get the outboard of blob ${digest} from`,
      (near, options) => outboardIn(near, digest, options),
      options,
    );
    if (near !== undefined) return near;
    try {
      return await outboardIn(this.#tiers.far, digest, options);
    } catch (error) {
      const [isNear] = (await this.#hasNear([digest], options)) ?? [];
      if (isNear) return undefined; // it can be made there
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tiers[Symbol.asyncDispose]();
  }

  #hasNear(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly boolean[] | undefined> {
    const ask = (near: BlobService, options: AbortOptions) => near.hasMany(digests, options);
    return this.#tiers.tryNear("look up blobs in", ask, options);
  }

  #openNear(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const open = (near: BlobService, { signal }: AbortOptions) =>
      near.read(digest, { ...options, signal });
    return this.#tiers.openNear(`read blob ${digest} from`, open, options);
  }

  async #readFar(
    digest: B3Digest,
    start: number,
    end: number,
    options: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const { far } = this.#tiers;
    if (start > 0 || end < Number.MAX_SAFE_INTEGER) {
      const chunks = await chunksIn(far, digest, options);
      if (chunks === undefined) return undefined;
      if (chunks.length > 1) return readChunked(chunks, this.#readChunk, options);
    }
    const fill = this.#fills.of(digest);
    if (fill === undefined) return await far.read(digest, options);
    if (!(await unlessAborted(fill.found, options.signal))) return undefined;
    return fill.read(start, end, options);
  }

  /**
   * Whatever fails to come from the near half comes from the far one. Of a whole blob, that is told from other bytes: what
   * was given before the near half failed may not have been verified.
   */
  async *#withFallback(
    near: AsyncIterable<Uint8Array>,
    digest: B3Digest,
    start: number,
    end: number,
    options: ReadOptions,
  ): AsyncGenerator<Uint8Array> {
    const isWhole = start === 0 && end === Number.MAX_SAFE_INTEGER;
    using hasher = isWhole ? new PieceHasher() : undefined;
    let at = start;
    try {
      for await (const data of near) {
        hasher?.update(data);
        at += data.length;
        yield data;
      }
      return;
    } catch (error) {
      options.signal?.throwIfAborted();
      this.#tiers.warn(`read blob ${digest} from`, error);
    }
    const rest = await this.#readFar(digest, at, end, { ...options, offset: at, length: end - at });
    if (rest === undefined) {
      throw new CastoreError("data_loss", `Cannot read blob ${digest}: it is damaged or gone`);
    }
    const fail = (found: B3Digest) =>
      new CastoreError("data_loss", `Cannot read blob ${digest}: its halves gave ${found}`);
    yield* hasher === undefined ? rest : hasher.verifyRest(rest, { digest, fail });
  }

  /** A chunk of a blob of the far half, from either. */
  readonly #readChunk = async (chunk: ChunkMeta, options?: AbortOptions): Promise<Uint8Array> => {
    const { digest } = chunk;
    const near = await this.#tiers.tryNear(
      `read chunk ${digest} from`,
      (near, options) => readWhole(near, chunk, options),
      options,
    );
    if (near !== undefined) return near;
    const [far] = await this.#batches.read([chunk], options);
    if (far !== undefined) return far;
    throw new CastoreError("data_loss", `Cannot read chunk ${digest}: it is damaged or gone`);
  };

  /** Stores what was read in the near half; `undefined` if there is no room for that now. */
  #keep(blobs: readonly Uint8Array[]): Promise<boolean> | undefined {
    const bytes = blobs.reduce((sum, { length }) => sum + length, 0);
    const isFull = this.#keptBytes > 0 && this.#keptBytes + bytes > KEEP_BYTES;
    if (isFull || this.#tiers.writing.isSilent) return undefined;
    this.#keptBytes += bytes;
    const { closing } = this.#tiers;
    const store = (near: BlobService, options: AbortOptions) => near.putMany(blobs, options);
    const kept = this.#tiers.storeNear("keep blobs in", store, { signal: closing }).finally(() => {
      this.#keptBytes -= bytes;
    });
    this.#tiers.inBackground(kept);
    return kept;
  }
}

/** Writes to both halves. */
class WriteThroughBlob extends WriteThrough<BlobService, BlobWriter> implements BlobWriter {
  async write(data: Uint8Array): Promise<void> {
    await this.far.write(data);
    await this.near.try((near) => near.write(data));
  }
}

/** How a blob of a service is cut. */
async function chunksIn(
  service: BlobService,
  digest: B3Digest,
  options?: AbortOptions,
): Promise<ChunkList | undefined> {
  await using reader = await service.open(digest, options);
  return reader?.chunks;
}

/** The outboard that a service has of a blob, without making it. */
async function outboardIn(
  service: BlobService | (BlobService & OutboardSource),
  digest: B3Digest,
  options?: AbortOptions,
): Promise<Outboard | undefined> {
  return "outboard" in service ? await service.outboard(digest, options) : undefined;
}
