import { unlessAborted } from "../abort.ts";
import { concatBytes, copyBytes } from "../bytes.ts";
import { B3Digest } from "../digest.ts";
import { CastoreError } from "../errors.ts";
import type { AbortOptions } from "../options.ts";
import { SingleFlight } from "../single-flight.ts";
import { type TierOptions, Tiers, WriteThrough } from "../tiers.ts";
import { BlobFill } from "./blob-fill.ts";
import type { BlobService, BlobWriter, ChunkMeta, LentBlobs, ReadOptions } from "./blob-service.ts";
import { readChunked, resolveRange } from "./chunked-reader.ts";
import { readWhole } from "./one-by-one.ts";

/**
 * Blobs in two halves: a near one, such as a disk, and a far one, such as a bucket.
 *
 * What only the far half has is kept in the near one when it is read: a blob that is read whole, once however
 * many read it at the same time; of a blob that is read in part, the chunks that the part lies in. Readers are
 * not held up by that, nor by one another, and it goes on when they stop. A near half that fails is warned of and
 * fails no read.
 *
 * Disposing of it waits for nothing but the end of what is being kept, which is given up; the halves stay
 * open.
 */
export class CombinedBlobService implements BlobService {
  readonly #tiers: Tiers<BlobService>;
  readonly #fills = new Map<string, BlobFill>();
  readonly #chunks = new SingleFlight<Uint8Array>();
  readonly #batches = new SingleFlight<LentBlobs>();
  /** What is on its way into the near half. */
  readonly #storing = new Set<Promise<unknown>>();
  readonly #closing = new AbortController();

  constructor(options: TierOptions<BlobService>) {
    this.#tiers = new Tiers("CombinedBlobService", options);
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    const [found] = await this.hasMany([digest], options);
    return found!;
  }

  async chunks(
    digest: B3Digest,
    options?: AbortOptions,
  ): Promise<readonly ChunkMeta[] | undefined> {
    options?.signal?.throwIfAborted();
    const { far } = this.#tiers;
    const near = await this.#tiers.tryNear(
      `look up blob ${digest} in`,
      (near) => near.chunks(digest, options),
      options,
    );
    return near ?? (await far.chunks(digest, options));
  }

  async read(
    digest: B3Digest,
    options: ReadOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const { start, end } = resolveRange(Number.MAX_SAFE_INTEGER, options);
    options.signal?.throwIfAborted();
    const near = await this.#tiers.tryNear(
      `read blob ${digest} from`,
      (near) => near.read(digest, options),
      options,
    );
    if (near !== undefined) return this.#withFallback(near, digest, start, end, options);
    return await this.#readFar(digest, start, end, options);
  }

  async hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    options?.signal?.throwIfAborted();
    const near = await this.#tiers.tryNear(
      "look up blobs in",
      (near) => near.hasMany(digests, options),
      options,
    );
    const missing = digests.filter((_, i) => !near?.[i]);
    const far = missing.length > 0 ? await this.#tiers.far.hasMany(missing, options) : [];
    let next = 0;
    return digests.map((_, i) => near?.[i] || far[next++]!);
  }

  async readMany(blobs: readonly ChunkMeta[], options?: AbortOptions): Promise<LentBlobs> {
    options?.signal?.throwIfAborted();
    using stack = new DisposableStack();
    const near = await this.#tiers.tryNear(
      "read blobs from",
      (near) => near.readMany(blobs, options),
      options,
    );
    if (near !== undefined) stack.use(near);
    const missing = blobs.filter((_, i) => near?.contents[i] === undefined);
    const far = missing.length > 0 ? await this.#readManyFar(missing, options) : undefined;
    let next = 0;
    const contents = blobs.map((_, i) => near?.contents[i] ?? far![next++]);
    const lent = stack.move();
    return { contents, [Symbol.dispose]: () => lent.dispose() };
  }

  async putMany(
    blobs: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly B3Digest[]> {
    const { near, far, mode } = this.#tiers;
    if (mode === "near-only") return await near.putMany(blobs, options);
    if (mode === "far-only") return await far.putMany(blobs, options);
    const digests = await far.putMany(blobs, options);
    await this.#tiers.tryNear("put blobs into", (near) => near.putMany(blobs, options), options);
    return digests;
  }

  openWriter(options?: AbortOptions): BlobWriter {
    const { near, far, mode } = this.#tiers;
    if (mode === "near-only") return near.openWriter(options);
    if (mode === "far-only") return far.openWriter(options);
    const openNear = () => near.openWriter(options);
    return new WriteThroughBlob(this.#tiers, far.openWriter(options), openNear, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new CastoreError("aborted", "Cannot go on: the service is disposed of"));
    await Promise.all([...this.#fills.values()].map(({ over }) => over));
    await this.#chunks.settled();
    await this.#batches.settled();
    await Promise.allSettled(this.#storing);
  }

  async #readFar(
    digest: B3Digest,
    start: number,
    end: number,
    options: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const { far } = this.#tiers;
    if (start > 0 || end < Number.MAX_SAFE_INTEGER) {
      const chunks = await far.chunks(digest, options);
      if (chunks === undefined) return undefined;
      const fetch = async (chunk: ChunkMeta, options?: AbortOptions) =>
        copyBytes(await unlessAborted(this.#fetchChunk(chunk), options?.signal));
      if (chunks.length > 0) return readChunked(chunks, fetch, options);
    }
    const fill = this.#fill(digest);
    if (!(await unlessAborted(fill.found, options.signal))) return undefined;
    return untilAborted(fill.read(start, end), options.signal);
  }

  /** Copies a blob to the near half, if that is not going on. */
  #fill(digest: B3Digest): BlobFill {
    const { hex } = digest;
    let fill = this.#fills.get(hex);
    if (fill === undefined) {
      const onFailure = (error: unknown) => this.#tiers.warn(`keep blob ${digest} in`, error);
      fill = new BlobFill(digest, this.#tiers, onFailure, this.#closing.signal);
      this.#fills.set(hex, fill);
      void fill.over.finally(() => this.#fills.delete(hex));
      fill.found.catch(() => undefined); // awaited by who asked first
    }
    return fill;
  }

  /** Whatever fails to come from the near half comes from the far one. */
  async *#withFallback(
    near: AsyncIterable<Uint8Array>,
    digest: B3Digest,
    start: number,
    end: number,
    options: ReadOptions,
  ): AsyncGenerator<Uint8Array> {
    let at = start;
    try {
      for await (const data of near) {
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
    yield* rest;
  }

  /** A chunk of a blob of the far half, from either. Several callers get the same, which they are to copy. */
  #fetchChunk(chunk: ChunkMeta): Promise<Uint8Array> {
    const { digest } = chunk;
    const options = { signal: this.#closing.signal };
    return this.#chunks.run(digest.hex, async () => {
      const near = await this.#tiers.tryNear(`read chunk ${digest} from`, (near) =>
        readWhole(near, chunk, options),
      );
      if (near !== undefined) return near;
      const far = await readWhole(this.#tiers.far, chunk, options);
      if (far === undefined) {
        throw new CastoreError("data_loss", `Cannot read chunk ${digest}: it is damaged or gone`);
      }
      await this.#keep([far]);
      return far;
    });
  }

  /** Reads what the near half does not have, once for all who ask for the same at the same time. */
  async #readManyFar(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    const key = B3Digest.of(concatBytes(blobs.map(({ digest }) => digest.bytes))).hex;
    const batch = this.#batches.run(key, async () => {
      const { signal } = this.#closing;
      using lent = await this.#tiers.far.readMany(blobs, { signal });
      const contents = lent.contents.map((data) => data && copyBytes(data));
      await this.#keep(contents.filter((data) => data !== undefined));
      return { contents, [Symbol.dispose]: () => undefined };
    });
    const { contents } = await unlessAborted(batch, options?.signal);
    return contents.map((data) => data && copyBytes(data)); // others get, and store, the same
  }

  /** Stores what was read in the near half. Resolves at once, unless that has enough to do already. */
  async #keep(blobs: readonly Uint8Array[]): Promise<void> {
    const options = { signal: this.#closing.signal };
    const stored = this.#tiers
      .tryNear("keep blobs in", (near) => near.putMany(blobs, options), options)
      .catch(() => undefined) // given up
      .finally(() => this.#storing.delete(stored));
    this.#storing.add(stored);
    if (this.#storing.size > MAX_STORING) await Promise.race(this.#storing);
  }
}

/** How many batches are on their way into the near half before readers wait for one of them. */
const MAX_STORING = 4;

/** Writes to both halves. */
class WriteThroughBlob extends WriteThrough<BlobWriter> implements BlobWriter {
  async write(data: Uint8Array): Promise<void> {
    await this.far.write(data);
    await this.near.try((near) => near.write(data));
  }
}

async function* untilAborted(
  stream: AsyncIterable<Uint8Array>,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const iterator = stream[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { done, value } = await unlessAborted(iterator.next(), signal);
      if (done) return;
      yield value;
    }
  } finally {
    void iterator.return?.(); // takes effect when what is awaited has come
  }
}
