import type {
  AbortOptions,
  B3Digest,
  BlobReader,
  BlobService,
  BlobStat,
  BlobWriter,
  ChunkList,
  ChunkMeta,
  FrameBatch,
  PutListOptions,
  ReadOptions,
} from "@tvix/castore";
import { FaultPlan, type Faults } from "./fault-plan.ts";
import { faultyCollector } from "./faulty-collector.ts";

/**
 * A blob service between another one and whoever uses it, of which calls go wrong, the same ones for the same seed. What
 * it says of blobs is right, but their contents may be cut off, or others, without a word: no service may do so.
 */
export class FaultyBlobService implements BlobService {
  readonly #service: BlobService;
  readonly #plan: FaultPlan;

  /** @param service is disposed of with it */
  constructor(service: BlobService, faults: Faults, seed: number) {
    this.#service = service;
    this.#plan = new FaultPlan(faults, seed, service.constructor.name);
  }

  /** How many times something went wrong so far. */
  get faults(): number {
    return this.#plan.happened;
  }

  /** Lets nothing go wrong from now on. */
  heal(): void {
    this.#plan.heal();
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    await this.#plan.call();
    return await this.#service.has(digest, options);
  }

  async statMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (BlobStat | undefined)[]> {
    await this.#plan.call();
    return await this.#service.statMany(digests, options);
  }

  async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    await this.#plan.call();
    const reader = await this.#service.open(digest, options);
    if (reader === undefined) return undefined;
    const { size, chunks } = reader;
    return {
      digest,
      size,
      chunks,
      read: async (...args) => {
        await this.#plan.call();
        return this.#plan.damaged(await reader.read(...args));
      },
      [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
    };
  }

  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    await this.#plan.call();
    const found = await this.#service.read(digest, options);
    return found && this.#damaged(found, options);
  }

  async hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    await this.#plan.call();
    return await this.#service.hasMany(digests, options);
  }

  async readMany(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    await this.#plan.call();
    const found = await this.#service.readMany(blobs, options);
    return found.map((data) => data && this.#plan.damaged(data));
  }

  async putMany(
    blobs: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly B3Digest[]> {
    await this.#plan.call();
    const digests = await this.#service.putMany(blobs, options);
    await this.#plan.call();
    return digests;
  }

  async putList(digest: B3Digest, chunks: ChunkList, options?: PutListOptions): Promise<void> {
    await this.#plan.call();
    await this.#service.putList(digest, chunks, options);
    await this.#plan.call();
  }

  async putFrames(batch: FrameBatch, options?: AbortOptions): Promise<void> {
    await this.#plan.call();
    await this.#service.putFrames(batch, options);
    await this.#plan.call();
  }

  async *frames(chunks: ChunkList, options?: AbortOptions): AsyncGenerator<Uint8Array> {
    for await (const frame of this.#service.frames(chunks, options)) {
      await this.#plan.call();
      yield this.#plan.damaged(frame);
    }
  }

  openWriter(options?: AbortOptions): BlobWriter {
    const writer = this.#service.openWriter(options);
    const { add, ...rest } = faultyCollector(this.#plan, writer, (data: Uint8Array) =>
      writer.write(data),
    );
    return { write: add, ...rest };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#service[Symbol.asyncDispose]();
  }

  async *#damaged(
    contents: AsyncIterable<Uint8Array>,
    options?: AbortOptions,
  ): AsyncGenerator<Uint8Array> {
    for await (const piece of contents) {
      await this.#plan.call();
      options?.signal?.throwIfAborted();
      const data = this.#plan.damaged(piece);
      if (data.length > 0) yield data;
      if (data.length < piece.length) return;
    }
  }
}
