import {
  type AbortOptions,
  type B3Digest,
  type BlobReader,
  type BlobService,
  type BlobStat,
  type BlobWriter,
  type ChunkList,
  type ChunkMeta,
  collectBytes,
  copyBytes,
  type FrameBatch,
  type PutListOptions,
  type ReadOptions,
} from "@tvix/castore";
import { repeat, repeatingCollector } from "./repeat.ts";

/** How long the pieces are that are read, in bytes. */
const PIECE_BYTES = 64 * 1024;

/**
 * Makes the calls of a blob service again that fail with `unavailable` or `data_loss`, or say that something is absent:
 * in spite of faults, it does all that the suite expects. Everything is held in memory.
 */
export class RepeatingBlobService implements BlobService {
  readonly #service: BlobService;

  /** @param service is disposed of with it */
  constructor(service: BlobService) {
    this.#service = service;
  }

  has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    const isAbsent = (found: boolean) => !found;
    return repeat(() => this.#service.has(digest, options), { ...options, isAbsent });
  }

  statMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (BlobStat | undefined)[]> {
    const isAbsent = (found: readonly unknown[]) => found.includes(undefined);
    return repeat(() => this.#service.statMany(digests, options), { ...options, isAbsent });
  }

  async open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined> {
    const open = () => this.#service.open(digest, options);
    const reader = await repeat(open, { ...options, isAbsent });
    if (reader === undefined) return undefined;
    const { size, chunks } = reader;
    return {
      digest,
      size,
      chunks,
      read: (offset, length, options) =>
        repeat(() => reader.read(offset, length, options), { ...options }),
      [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
    };
  }

  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const read = async () => {
      const stream = await this.#service.read(digest, options);
      return stream && (await collectBytes(stream));
    };
    const contents = await repeat(read, { signal: options?.signal, isAbsent });
    return contents && piecesOf(contents, options);
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    const isAbsent = (found: readonly boolean[]) => found.includes(false);
    return repeat(() => this.#service.hasMany(digests, options), { ...options, isAbsent });
  }

  async readMany(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]> {
    /** What has come of all that was asked for. */
    const contents: (Uint8Array | undefined)[] = blobs.map(() => undefined);
    const read = async () => {
      const found = await this.#service.readMany(blobs, options);
      for (const [i, data] of found.entries()) contents[i] ??= data;
    };
    await repeat(read, { ...options, isAbsent: () => contents.includes(undefined) });
    return contents;
  }

  putMany(blobs: readonly Uint8Array[], options?: AbortOptions): Promise<readonly B3Digest[]> {
    return repeat(() => this.#service.putMany(blobs, options), options);
  }

  putList(digest: B3Digest, chunks: ChunkList, options?: PutListOptions): Promise<void> {
    return repeat(() => this.#service.putList(digest, chunks, options), options);
  }

  putFrames(batch: FrameBatch, options?: AbortOptions): Promise<void> {
    return repeat(() => this.#service.putFrames(batch, options), options);
  }

  async *frames(chunks: ChunkList, options?: AbortOptions): AsyncGenerator<Uint8Array> {
    yield* await repeat(() => Array.fromAsync(this.#service.frames(chunks, options)), options);
  }

  openWriter(options?: AbortOptions): BlobWriter {
    const { add, ...rest } = repeatingCollector(
      () => this.#service.openWriter(options),
      (writer, data: Uint8Array) => writer.write(data),
      options,
    );
    return { write: (data) => add(copyBytes(data)), ...rest };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#service[Symbol.asyncDispose]();
  }
}

function isAbsent(found: unknown): boolean {
  return found === undefined;
}

async function* piecesOf(contents: Uint8Array, options?: AbortOptions): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < contents.length; at += PIECE_BYTES) {
    options?.signal?.throwIfAborted();
    yield contents.subarray(at, at + PIECE_BYTES);
  }
}
