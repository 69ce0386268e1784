import {
  type AbortOptions,
  type B3Digest,
  type BlobService,
  ChunkList,
  type ChunkMeta,
  type DirectoryService,
  type Node,
  storedSizesOf,
  walkClosure,
} from "@tvix/castore";
import { StoreError } from "./errors.ts";

/** How much of a store a group of trees takes. */
export interface DiskUsage {
  /** Bytes of its chunks, each counted once. */
  readonly deduplicated: number;
  /** Bytes that these chunks are stored in; `undefined` if the store does not tell. */
  readonly compressed: number | undefined;
  /** Bytes of those chunks that other groups have too. */
  readonly shared: number;
}

/** How many blobs are looked up together, and how many of them are opened at the same time. */
const BLOBS_PER_LOOKUP = 1024;
const CONCURRENCY = 8;

/** How many chunks are looked up together. */
const CHUNKS_PER_LOOKUP = 4096;

/**
 * Measures how much of a store groups of trees take, and how much of that they share: {@link add} each group, then read
 * {@link groups} and {@link total}. Contents are counted, not directories. Takes some 100 bytes of memory a chunk.
 */
export class DiskUsageMeter {
  readonly #blobService: BlobService;
  readonly #directoryService: DirectoryService;
  readonly #groups: MutableUsage[] = [];
  readonly #total: MutableUsage = newUsage();
  /** For each chunk the last group that has it: its index, or -1 - index if another group has it too. */
  readonly #lastGroup = new Map<string, number>();

  constructor({
    blobService,
    directoryService,
  }: {
    readonly blobService: BlobService;
    readonly directoryService: DirectoryService;
  }) {
    this.#blobService = blobService;
    this.#directoryService = directoryService;
  }

  /** The usage of each group, in the order in which they were added. */
  get groups(): readonly DiskUsage[] {
    return this.#groups.map((usage) => this.#told(usage));
  }

  /** The usage of all groups together. Nothing of it is shared. */
  get total(): DiskUsage {
    return this.#told(this.#total);
  }

  /**
   * Adds a group of trees.
   *
   * @param options.onBlobs is told running totals of different blobs and their bytes
   * @throws StoreError `not_found` if a root directory or a blob is missing; whatever the services throw: `data_loss` if
   *   something is damaged
   */
  async add(
    roots: Iterable<Node>,
    { signal, onBlobs }: AbortOptions & { onBlobs?: (blobs: number, bytes: number) => void } = {},
  ): Promise<void> {
    const index = this.#groups.push(newUsage()) - 1;
    const found = { blobs: 0, bytes: 0 };
    let batch: ChunkMeta[] = [];
    const count = async () => {
      await this.#countBlobs(index, batch, { signal });
      found.blobs += batch.length;
      for (const { size } of batch) found.bytes += size;
      onBlobs?.(found.blobs, found.bytes);
      batch = [];
    };
    for (const root of roots) {
      for await (const item of walkClosure(this.#directoryService, root, { signal })) {
        if (item.type !== "blob") continue;
        batch.push({ digest: item.digest, size: Number(item.size) });
        if (batch.length >= BLOBS_PER_LOOKUP) await count();
      }
    }
    await count();
  }

  async #countBlobs(
    group: number,
    blobs: readonly ChunkMeta[],
    options: AbortOptions,
  ): Promise<void> {
    const digests = blobs.map(({ digest }) => digest);
    const stats = await this.#blobService.statMany(digests, options);
    const single: ChunkMeta[] = [];
    const cut: B3Digest[] = [];
    for (const [i, { digest }] of blobs.entries()) {
      const stat = stats[i];
      if (stat === undefined) throw missing(digest);
      if (stat.chunks === 1) single.push({ digest, size: stat.size });
      else if (stat.chunks > 1) cut.push(digest);
    }
    await this.#countChunks(group, single, options);
    for (let at = 0; at < cut.length; at += CONCURRENCY) {
      const open = (digest: B3Digest) => this.#chunksOf(digest, options);
      const lists = await Promise.all(cut.slice(at, at + CONCURRENCY).map(open));
      for (const list of lists) await this.#countChunks(group, list, options);
    }
  }

  async #chunksOf(digest: B3Digest, options: AbortOptions): Promise<ChunkList> {
    await using reader = await this.#blobService.open(digest, options);
    if (reader === undefined) throw missing(digest);
    return reader.chunks;
  }

  /** Counts chunks for a group, those that it does not have yet. */
  async #countChunks(
    group: number,
    chunks: Iterable<ChunkMeta>,
    options: AbortOptions,
  ): Promise<void> {
    let batch: CountedChunk[] = [];
    for (const chunk of chunks) {
      const isFirst = this.#countChunk(group, chunk);
      if (isFirst === undefined) continue;
      batch.push({ ...chunk, isFirst });
      if (batch.length < CHUNKS_PER_LOOKUP) continue;
      await this.#addCompressed(group, batch, options);
      batch = [];
    }
    if (batch.length > 0) await this.#addCompressed(group, batch, options);
  }

  /** Returns whether no group had the chunk before; `undefined` if this group had it. */
  #countChunk(group: number, { digest, size }: ChunkMeta): boolean | undefined {
    const key = Buffer.from(digest.bytes).toString("latin1"); // half as long as hexadecimal digits
    const last = this.#lastGroup.get(key);
    if (last === group || last === -1 - group) return undefined;
    const usage = this.#groups[group]!;
    usage.deduplicated += size;
    if (last === undefined) {
      this.#total.deduplicated += size;
      this.#lastGroup.set(key, group);
      return true;
    }
    usage.shared += size;
    if (last >= 0) this.#groups[last]!.shared += size;
    this.#lastGroup.set(key, -1 - group);
    return false;
  }

  async #addCompressed(
    group: number,
    chunks: readonly CountedChunk[],
    options: AbortOptions,
  ): Promise<void> {
    const sizes = await storedSizesOf(this.#blobService, ChunkList.of(chunks), options);
    for (const [i, { isFirst }] of chunks.entries()) {
      const size = sizes[i] ?? Number.NaN; // a sum with an unknown size is unknown
      this.#groups[group]!.compressed += size;
      if (isFirst) this.#total.compressed += size;
    }
  }

  #told({ deduplicated, compressed, shared }: MutableUsage): DiskUsage {
    const isKnown = !Number.isNaN(compressed);
    return { deduplicated, compressed: isKnown ? compressed : undefined, shared };
  }
}

interface MutableUsage {
  deduplicated: number;
  compressed: number;
  shared: number;
}

/** A chunk that was counted for a group. */
interface CountedChunk extends ChunkMeta {
  /** Whether no other group had it before. */
  readonly isFirst: boolean;
}

function newUsage(): MutableUsage {
  return { deduplicated: 0, compressed: 0, shared: 0 };
}

function missing(digest: B3Digest): StoreError {
  return new StoreError("not_found", `Cannot measure usage: blob ${digest} is missing`);
}
