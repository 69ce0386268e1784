import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { StatBlobResponse_ChunkMetaSchema, StatBlobResponseSchema } from "@tvix/proto/castore";
import { LRUCache } from "lru-cache";
import pLimit from "p-limit";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { collectAtMost } from "../../bytes/byte-string.ts";
import { SingleFlight } from "../../bytes/single-flight.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_CHUNK_BYTES } from "../../model/limits.ts";
import { resolveRange } from "../../model/range.ts";
import { objectKey } from "../../objectstore/object-key.ts";
import type { ReadOptions } from "../blob-service.ts";
import { ChunkList } from "../chunk-list.ts";
import { type FetchChunk, readChunked } from "../chunked-reader.ts";
import { verifyBlob } from "../verify-blob.ts";
import type { BlobObjects, ChunkObjects } from "./chunk-objects.ts";

/** The longest list of chunks: one and a half million of them, which is 400 GB in chunks of 256 KiB. */
const MAX_LIST_BYTES = 64 * 1024 * 1024;

/** Of how many blobs it is remembered which list was proven: some megabytes. */
const KNOWN_PROVEN = 16_384;

/** How many blobs are read at the same time to prove their lists. */
const PROOFS = 4;

/** The chunks of a blob, none if it is one chunk or empty, and the digest of the object that lists them. */
export interface StoredList {
  readonly chunks: ChunkList;
  readonly hex: string;
}

/**
 * The lists of chunks in an object store, `blobs/b3/<4 hex>/<hex>`, and the blobs that they make up.
 *
 * The layout has no digest of a list. Beside each of two or more chunks that we write is one, of ours alone:
 * `lists/b3/<4 hex>/<hex>`. A list that has none, or another, is believed once its chunks were read and found to make
 * up the blob, which is remembered. A blob that cannot be read is marked at its list: it counts as absent until it
 * was put again, or read after all.
 */
export class ListedBlobs {
  readonly #objects: BlobObjects;
  readonly #chunks: ChunkObjects;
  /** Digests of the lists that are known to be right, by digest of the blob. */
  readonly #proven = new LRUCache<string, string>({ max: KNOWN_PROVEN });
  readonly #proofs = new SingleFlight<void>();
  readonly #limit = pLimit(PROOFS);

  constructor(objects: BlobObjects, chunks: ChunkObjects) {
    this.#objects = objects;
    this.#chunks = chunks;
  }

  /** Whether there is a list for a blob, and nobody found that the blob cannot be read. */
  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    const { store, marks } = this.#objects;
    if (await marks.has(listKey(digest), options)) return false;
    return (await store.head(listKey(digest), options)) !== undefined;
  }

  /**
   * The list for a blob, which need not be right; `undefined` if there is none, or none that can be parsed, or the blob
   * was found lost and still is.
   */
  async get(digest: B3Digest, options?: AbortOptions): Promise<StoredList | undefined> {
    const { store, marks } = this.#objects;
    const key = listKey(digest);
    const object = await store.get(key, { signal: options?.signal });
    if (object === undefined) return undefined;
    const bytes = await collectAtMost(object, MAX_LIST_BYTES);
    let list: StoredList;
    try {
      list = parseList(bytes);
    } catch (error) {
      await this.#lose(
        digest,
        `its list of chunks is damaged: ${(error as Error).message}`,
        options,
      );
      return undefined;
    }
    const isLost = marks.isKnown(key) && (await marks.has(key, options));
    return isLost && !(await this.#isFound(digest, list, options)) ? undefined : list;
  }

  /**
   * Makes sure that the chunks of a list make up its blob: from memory or what is stored beside it, and else by reading
   * all of them, once for all who ask.
   *
   * @throws CastoreError `data_loss` if they do not
   */
  async prove(digest: B3Digest, list: StoredList, options?: AbortOptions): Promise<void> {
    const isProven = await this.#isProven(digest, list, options);
    if (isProven !== true) await this.#readThrough(digest, list, options);
  }

  /**
   * Reads a blob by its list, which is proven first for a part. What is read whole is verified as it comes, up to the
   * last piece: a list that is not the one that was stored is not read even so far.
   *
   * @throws CastoreError `data_loss` for a list that is not that of the blob
   */
  async read(
    digest: B3Digest,
    list: StoredList,
    options?: ReadOptions,
  ): Promise<AsyncIterable<Uint8Array>> {
    const size = list.chunks.size;
    const { start, end } = resolveRange(size, options);
    const isWhole = start === 0 && end === size;
    const isProven = await this.#isProven(digest, list, options);
    if (isProven === false || (isProven === undefined && !isWhole)) {
      await this.#readThrough(digest, list, options);
    }
    if (isWhole) return this.#readWhole(digest, list, options);
    return this.#readChunks(digest, list, options);
  }

  /**
   * Stores the list of a blob whose chunks are stored.
   *
   * @param chunks none for a blob that is one chunk, or empty
   * @throws CastoreError `resource_exhausted` for too many chunks
   */
  async put(digest: B3Digest, chunks: ChunkList, options?: AbortOptions): Promise<void> {
    const bytes = encodeList(chunks);
    if (bytes.length > MAX_LIST_BYTES) {
      throw new CastoreError(
        "resource_exhausted",
        `Cannot store blob ${digest}: expected a list of chunks of at most ${MAX_LIST_BYTES} bytes, ` +
          `found ${bytes.length}. Larger chunks make it shorter`,
      );
    }
    const { store, marks } = this.#objects;
    if (chunks.length > 0) {
      const list = blake3Digest(bytes);
      await store.put(proofKey(digest), list.bytes, options);
      this.#proven.set(digest.hex, list.hex);
    }
    await store.put(listKey(digest), bytes, options);
    await marks.clear(listKey(digest), options);
  }

  /** Whether a list is known to be right, or the one whose digest was stored; `undefined` if none was. */
  async #isProven(
    digest: B3Digest,
    { hex }: StoredList,
    options?: AbortOptions,
  ): Promise<boolean | undefined> {
    if (this.#proven.get(digest.hex) === hex) return true;
    const object = await this.#objects.store.get(proofKey(digest), { signal: options?.signal });
    if (object === undefined) return undefined;
    const bytes = await collectAtMost(object, B3Digest.LENGTH);
    if (bytes?.length !== B3Digest.LENGTH || B3Digest.fromBytes(bytes).hex !== hex) return false;
    this.#proven.set(digest.hex, hex);
    return true;
  }

  /** Whether a blob that was found lost can be read after all. */
  async #isFound(digest: B3Digest, list: StoredList, options?: AbortOptions): Promise<boolean> {
    for (const chunk of list.chunks) {
      if (!this.#chunks.isLost(chunk.digest)) continue;
      const found = await this.#chunks.get(chunk.digest, chunk.size, options);
      if (!(found instanceof Uint8Array)) return false; // so the others need not be read
    }
    try {
      await this.#readThrough(digest, list, options);
      return true;
    } catch (error) {
      if (error instanceof CastoreError && error.code === "data_loss") return false;
      throw error;
    }
  }

  async #readThrough(digest: B3Digest, list: StoredList, options?: AbortOptions): Promise<void> {
    const read = async (signal: AbortSignal) => {
      for await (const _ of this.#readWhole(digest, list, { signal }));
    };
    const work = (signal: AbortSignal) => this.#limit(read, signal);
    await this.#proofs.run(`${digest.hex}/${list.hex}`, work, options);
  }

  async *#readWhole(
    digest: B3Digest,
    list: StoredList,
    options?: AbortOptions,
  ): AsyncGenerator<Uint8Array> {
    const stream = this.#readChunks(digest, list, { signal: options?.signal });
    const fail = (found: B3Digest) => {
      return this.#lose(digest, `its chunks make up ${found}`, options);
    };
    yield* verifyBlob(stream, { digest, size: list.chunks.size, fail });
    this.#proven.set(digest.hex, list.hex);
    await this.#objects.marks.clear(listKey(digest), options);
  }

  #readChunks(
    digest: B3Digest,
    { chunks }: StoredList,
    options?: ReadOptions,
  ): AsyncIterable<Uint8Array> {
    return readChunked(chunks, this.fetchOf(digest), options);
  }

  /** How a chunk of a blob is read. */
  fetchOf(digest: B3Digest): FetchChunk {
    return async (chunk, options) => {
      const found = await this.#chunks.get(chunk.digest, chunk.size, options);
      if (found instanceof Uint8Array) {
        if (found.length === chunk.size) return found;
        const reason = `chunk ${chunk.digest} has ${found.length} bytes, listed are ${chunk.size}`;
        throw await this.#lose(digest, reason, options);
      }
      // If it is longer, the list may be wrong, or the chunk: both are put anew.
      await this.#chunks.lose(chunk.digest, found, options);
      throw await this.#lose(digest, `chunk ${chunk.digest} is ${found}`, options);
    };
  }

  /** Notes that a blob cannot be read, so that putting it again heals. Gives the error that says so. */
  async #lose(digest: B3Digest, reason: string, options?: AbortOptions): Promise<CastoreError> {
    const { store, marks, onCorrupt } = this.#objects;
    const message = `Cannot read blob ${digest} in ${store.name}: ${reason}`;
    if (!marks.isKnown(listKey(digest))) onCorrupt(message);
    await marks.mark(listKey(digest), options);
    return new CastoreError("data_loss", message);
  }
}

function listKey(digest: B3Digest): string {
  return objectKey("blobs", digest);
}

function proofKey(digest: B3Digest): string {
  return objectKey("lists", digest);
}

function encodeList(chunks: ChunkList): Uint8Array {
  const message = create(StatBlobResponseSchema, {
    chunks: [...chunks].map(({ digest, size }) =>
      create(StatBlobResponse_ChunkMetaSchema, { digest: digest.bytes, size: BigInt(size) }),
    ),
  });
  return toBinary(StatBlobResponseSchema, message);
}

/** @throws Error that says what is wrong with a list of chunks; `undefined` is one that is too long */
function parseList(bytes: Uint8Array | undefined): StoredList {
  if (bytes === undefined) throw new Error(`it has more than ${MAX_LIST_BYTES} bytes`);
  const chunks = fromBinary(StatBlobResponseSchema, bytes).chunks.map(({ digest, size }) => {
    if (size > 0n && size <= BigInt(MAX_CHUNK_BYTES)) {
      return { digest: B3Digest.fromBytes(digest), size: Number(size) };
    }
    throw new Error(`it has a chunk of ${size} bytes`);
  });
  return { chunks: ChunkList.of(chunks), hex: blake3Digest(bytes).hex };
}
