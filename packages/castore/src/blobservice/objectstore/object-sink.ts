import pLimit from "p-limit";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import type { ByteBudget } from "../../bytes/byte-budget.ts";
import { copyBytes } from "../../bytes/byte-string.ts";
import { freeMemory } from "../../bytes/free-memory.ts";
import { lruCache } from "../../bytes/lru-cache.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import type { ChunkList } from "../chunk-list.ts";
import type { ChunkSink } from "../chunked-writer.ts";
import type { BlobObjects } from "./blob-objects.ts";
import type { ChunkObjects } from "./chunk-objects.ts";

/** How many chunks one writer has under way. */
const UPLOADS = 16;

/** How many chunks a writer remembers, to store each of them once. */
const KNOWN_TAKEN = 65_536;

/** Stores the chunks of one blob in an object store, several at the same time. */
export class ObjectSink implements ChunkSink {
  readonly #chunks: ChunkObjects;
  readonly #objects: BlobObjects;
  readonly #budget: ByteBudget;
  readonly #limit = pLimit(UPLOADS);
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #uploads = new Set<Promise<void>>();
  readonly #taken = lruCache<string, true>(KNOWN_TAKEN);
  #failure: { readonly error: unknown } | undefined;

  /** @param budget bounds the bytes that all writers have under way */
  constructor(
    chunks: ChunkObjects,
    objects: BlobObjects,
    budget: ByteBudget,
    { signal }: AbortOptions = {},
  ) {
    this.#chunks = chunks;
    this.#objects = objects;
    this.#budget = budget;
    this.#signal = AbortSignal.any([this.#stop.signal, ...(signal ? [signal] : [])]);
  }

  async putChunk(digest: B3Digest, data: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    if (data.length === 0 || this.#taken.has(digest.key)) return;
    this.#taken.set(digest.key, true);
    await this.#budget.take(data.length, { signal: this.#signal });
    const upload = this.#upload(digest, copyBytes(data));
    this.#uploads.add(upload);
    void upload.finally(() => this.#uploads.delete(upload));
  }

  async commit(digest: B3Digest, chunks: ChunkList): Promise<void> {
    await Promise.all(this.#uploads);
    if (this.#failure !== undefined) throw this.#failure.error;
    await this.#objects.commit(digest, chunks, { signal: this.#signal });
  }

  async discard(): Promise<void> {
    this.#stop.abort(new CastoreError("aborted", "Cannot store chunks: the blob was dropped"));
    await Promise.all(this.#uploads);
  }

  /** Stores a chunk in memory that is freed, or notes the failure. Never rejects. */
  async #upload(digest: B3Digest, data: Uint8Array): Promise<void> {
    const { length } = data;
    const options = { signal: this.#signal };
    try {
      await this.#limit(() => this.#chunks.putIfAbsent(digest, data, options));
    } catch (error) {
      this.#failure ??= { error };
    } finally {
      freeMemory([data]);
      this.#budget.release(length);
    }
  }
}
