import { join } from "node:path";
import { ByteBudget } from "../byte-budget.ts";
import { B3Digest } from "../digest.ts";
import { CastoreError } from "../errors.ts";
import type { AbortOptions } from "../options.ts";
import type { BlobService, BlobWriter, ChunkMeta, ReadOptions } from "./blob-service.ts";
import { readChunked } from "./chunked-reader.ts";
import { ChunkedBlobWriter, type ChunkSink } from "./chunked-writer.ts";
import { ChunkIndex, type ChunkLocation } from "./pack/chunk-index.ts";
import { decodeChunk, encodeChunk } from "./pack/codec.ts";
import { GroupCommit } from "./pack/group-commit.ts";
import { PackFiles } from "./pack/pack-files.ts";

/** What {@link PackBlobService.open} is told. */
export interface PackOptions extends AbortOptions {
  /** The folder, absolute. Created if it does not exist. */
  path: string;
  /** Compression level of zstd, 1 to 22. Default: 1. */
  zstdLevel?: number;
  /** Average size of new chunks in bytes, a power of two from 16 KiB to 4 MiB. Default: 256 KiB. */
  averageChunkSize?: number;
  /** Length in bytes at which a pack is full and the next one is begun. Default: 1 GiB. */
  maxPackSize?: number;
  /** Is told of damaged chunks that were met, and forgotten. Default: a process warning. */
  onCorrupt?: (message: string) => void;
}

/** How many bytes of chunks may be compressed, written and committed at the same time. */
const BYTES_IN_FLIGHT = 32 * 1024 * 1024;

/** A chunk on its way into a pack. */
interface PendingChunk {
  /** Resolves when it stands in the queue of the next commit. */
  readonly queued: Promise<void>;
  failure?: { readonly error: unknown };
}

/**
 * Keeps blobs in append-only pack files with a SQLite index, on the local disk: chunks by FastCDC,
 * equal ones once, each a zstd frame of its own. The layout of a pack is in `pack/format.ts`, that of
 * the index in `pack/chunk-index.ts`. Several processes may use the same folder.
 *
 * Chunks of a blob whose writer did not finish are kept, but not readable: the next writer of the same
 * bytes need not store them again.
 */
export class PackBlobService implements BlobService {
  readonly #options: PackOptions;
  readonly #index: ChunkIndex;
  readonly #files: PackFiles;
  readonly #commits: GroupCommit;
  readonly #budget = new ByteBudget(BYTES_IN_FLIGHT);
  readonly #pending = new Map<string, PendingChunk>();

  private constructor(options: PackOptions, index: ChunkIndex) {
    this.#options = options;
    this.#index = index;
    this.#files = new PackFiles(join(options.path, "packs"));
    this.#commits = new GroupCommit(index, this.#files, options.maxPackSize ?? 1024 ** 3);
  }

  /**
   * Opens a folder of packs, or creates it.
   *
   * @throws CastoreError `invalid_argument` for a chunk size that is not offered or an index of another
   *   kind, `data_loss` for a damaged index, `unavailable` while another process holds it
   */
  static async open(options: PackOptions): Promise<PackBlobService> {
    const index = await ChunkIndex.open(options.path, options);
    try {
      const service = new PackBlobService(options, index);
      await service.openWriter()[Symbol.asyncDispose](); // refuses a wrong chunk size here and now
      return service;
    } catch (error) {
      index[Symbol.dispose]();
      throw error;
    }
  }

  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    options?.signal?.throwIfAborted();
    return this.#isReadable(digest);
  }

  async chunks(
    digest: B3Digest,
    options?: AbortOptions,
  ): Promise<readonly ChunkMeta[] | undefined> {
    options?.signal?.throwIfAborted();
    if (this.#index.findChunk(digest) !== undefined) return [];
    return this.#index.findBlob(digest);
  }

  async read(
    digest: B3Digest,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    options?.signal?.throwIfAborted();
    const chunk = this.#index.findChunk(digest);
    const chunks = chunk ? [{ digest, size: chunk.size }] : this.#index.findBlob(digest);
    if (chunks === undefined) return undefined;
    return readChunked(chunks, ({ digest }) => this.#readChunk(digest), options);
  }

  openWriter(options?: AbortOptions): BlobWriter {
    const { averageChunkSize } = this.#options;
    return new ChunkedBlobWriter(this.#sink(options), { ...options, averageChunkSize });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled([...this.#pending.values()].map(({ queued }) => queued));
    await this.#commits.idle();
    await this.#files[Symbol.asyncDispose]();
    this.#index[Symbol.dispose]();
  }

  #isReadable(digest: B3Digest): boolean {
    return this.#index.findChunk(digest) !== undefined || this.#index.hasBlob(digest);
  }

  /** Takes the chunks of one blob. */
  #sink(options?: AbortOptions): ChunkSink {
    const awaited = new Set<PendingChunk>();
    return {
      putChunk: async (digest, data) => {
        const chunk = await this.#storeChunk(digest, data, options);
        if (chunk !== undefined) awaited.add(chunk);
      },
      commit: async (digest, chunks) => {
        if (awaited.size === 0 && this.#isReadable(digest)) return; // and so durable
        await Promise.all([...awaited].map(({ queued }) => queued));
        await new Promise<void>((resolve, reject) => {
          const check = () => {
            options?.signal?.throwIfAborted();
            for (const { failure } of awaited) if (failure !== undefined) throw failure.error;
          };
          this.#commits.addBlob({ digest, chunks, check, resolve, reject });
        });
      },
      discard: async () => awaited.clear(), // what is on its way stays, for the next writer
    };
  }

  /** Sees to it that a chunk gets stored; gives what is to be waited for, if it is not stored yet. */
  async #storeChunk(
    digest: B3Digest,
    data: Uint8Array,
    options?: AbortOptions,
  ): Promise<PendingChunk | undefined> {
    const found = this.#pending.get(digest.hex);
    if (found !== undefined || this.#index.isKnown(digest)) return found;
    await this.#budget.take(data.length, options);
    const meanwhile = this.#pending.get(digest.hex);
    if (meanwhile !== undefined || this.#index.isKnown(digest)) {
      this.#budget.release(data.length);
      return meanwhile;
    }
    const settle: (failure?: { error: unknown }) => void = (failure) => {
      chunk.failure = failure;
      this.#pending.delete(digest.hex);
      this.#budget.release(data.length);
    };
    const chunk: PendingChunk = {
      queued: encodeChunk(data, this.#options.zstdLevel ?? 1).then(
        (stored) => this.#commits.addChunk({ digest, size: data.length, stored, settle }),
        (error) => settle({ error }),
      ),
    };
    this.#pending.set(digest.hex, chunk);
    return chunk;
  }

  /** The contents of a chunk that a blob uses, verified. */
  async #readChunk(digest: B3Digest): Promise<Uint8Array> {
    const location = this.#index.findChunk(digest);
    if (location === undefined) throw await this.#lost(digest, "it is not in the index");
    const { pack, offset, storedSize, size, codec } = location;
    const payload = await this.#files.read(pack, offset, storedSize);
    const where = `"${this.#files.pathOf(pack)}" at ${offset}`;
    if (payload === undefined) throw await this.#lost(digest, `${where} is missing`, location);
    const data = await decodeChunk({ codec, payload }, size);
    if (data === undefined || !B3Digest.of(data).equals(digest)) {
      throw await this.#lost(digest, `${where} is damaged`, location);
    }
    return data;
  }

  /** Forgets a chunk that cannot be read any more, so that putting it again heals. */
  async #lost(digest: B3Digest, reason: string, location?: ChunkLocation): Promise<CastoreError> {
    const message = `Cannot read chunk ${digest}: ${reason}`;
    const { onCorrupt = (text) => process.emitWarning(text) } = this.#options;
    onCorrupt(message);
    await this.#commits
      .changeIndex((changes) => changes.forgetChunk(digest, location))
      .catch((error: Error) => onCorrupt(`Cannot forget chunk ${digest}: ${error.message}`));
    return new CastoreError("data_loss", message);
  }
}
