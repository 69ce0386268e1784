import { setImmediate as yieldToEvents } from "node:timers/promises";
import pLimit from "p-limit";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { collectAtMost } from "../../bytes/byte-string.ts";
import { lruCache } from "../../bytes/lru-cache.ts";
import { SingleFlight } from "../../bytes/single-flight.ts";
import { type Blake3Hasher, blake3 } from "../../hash/blake3.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError, hasCode } from "../../model/errors.ts";
import { MAX_CHUNK_BYTES } from "../../model/limits.ts";
import { resolveRange } from "../../model/range.ts";
import type { DamagedObjects } from "../../objectstore/damaged-objects.ts";
import { objectKey } from "../../objectstore/object-key.ts";
import type { ObjectContents, ObjectStore } from "../../objectstore/object-store.ts";
import type { ReadOptions } from "../blob-service.ts";
import type { ChunkList } from "../chunk-list.ts";
import { type FetchChunk, readChunked } from "../chunked-reader.ts";
import { verifyBlob } from "../verify-blob.ts";
import type { ChunkObjects } from "./chunk-objects.ts";
import { encodeList, ListDecoder } from "./list-format.ts";

/** The longest list of chunks: more than six million of them, which is 1.5 TiB in chunks of 256 KiB. */
const MAX_LIST_BYTES = 256 * 1024 * 1024;

/** How many bytes of a list are decoded before other events have their turn. */
const DECODE_BYTES = 128 * 1024;

/** How many blobs are remembered whose list was proven, and how many that cannot be read: some megabytes. */
const KNOWN_PROVEN = 16_384;
const KNOWN_LOST = 16_384;

/** How many blobs are read at the same time to prove their lists. */
const PROOFS = 4;

/** The list of a blob as it is stored. */
export interface StoredList {
  /** None if the blob is one chunk, or empty. */
  readonly chunks: ChunkList;
  /** Digest of the encoded list. */
  readonly hex: string;
  /** Version of the object. */
  readonly version: string | undefined;
}

/**
 * The lists of chunks in an object store, `blobs/b3/<4 hex>/<hex>`, and the blobs that they make up.
 *
 * The layout has no digest of a list. Beside each of two or more chunks that we write is one, of ours alone:
 * `lists/b3/<4 hex>/<hex>`. A list that has none, or another, is believed once its chunks were read and found to make
 * up the blob, which is remembered.
 *
 * The list of a blob that cannot be read is deleted, so that the blob is absent for everybody, and stored whole when it
 * is put again. Where that is not possible, this process remembers it until it has put or read the blob.
 */
export class ListedBlobs {
  readonly #store: ObjectStore;
  readonly #damaged: DamagedObjects;
  readonly #chunks: ChunkObjects;
  /** Digests of the lists that are known to be right, by digest of the blob. */
  readonly #proven = lruCache<string, string>(KNOWN_PROVEN);
  /** Blobs that cannot be read, though their lists are there. */
  readonly #lost = lruCache<string, true>(KNOWN_LOST);
  readonly #proofs = new SingleFlight<void>();
  readonly #limit = pLimit(PROOFS);

  constructor(store: ObjectStore, damaged: DamagedObjects, chunks: ChunkObjects) {
    this.#store = store;
    this.#damaged = damaged;
    this.#chunks = chunks;
  }

  /**
   * Tells what the list of a blob says of it, without reading it: `cut` into chunks, or `whole`, which is one chunk, or
   * empty; `undefined` where there is no list, or the blob is known to be unreadable.
   */
  async look(digest: B3Digest, options?: AbortOptions): Promise<"cut" | "whole" | undefined> {
    const found = await this.#damaged.head(listKey(digest), options);
    if (found === undefined || this.#lost.has(digest.key)) return undefined;
    return found.size > 0 ? "cut" : "whole";
  }

  /**
   * Reads the list of a blob, which need not be right; `undefined` if there is none, or none that can be decoded, or the
   * blob was found unreadable and still is.
   */
  async get(digest: B3Digest, options?: AbortOptions): Promise<StoredList | undefined> {
    const list = await this.#damaged.read(listKey(digest), parseList, options);
    if (typeof list === "string") return undefined;
    if (this.#lost.has(digest.key) && !(await this.#isReadable(digest, list, options))) {
      return undefined;
    }
    return list;
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
    const { size } = list.chunks;
    const { start, end } = resolveRange(size, options);
    const isWhole = start === 0 && end === size;
    const isProven = await this.#isProven(digest, list, options);
    if (isProven === false || (isProven === undefined && !isWhole)) {
      await this.#readThrough(digest, list, options);
    }
    if (isWhole) return this.#readWhole(digest, list, options);
    return readChunked(list.chunks, this.fetchOf(digest, list), options);
  }

  /**
   * Stores the list of a blob whose chunks are stored.
   *
   * @param chunks none for a blob that is one chunk, or empty
   * @throws CastoreError `resource_exhausted` for too many chunks
   */
  async put(digest: B3Digest, chunks: ChunkList, options?: AbortOptions): Promise<void> {
    if (chunks.length > 0) {
      const list = await digestOfList(digest, chunks, options);
      await this.#store.put(proofKey(digest), list.bytes, options);
      this.#proven.set(digest.key, list.hex);
    }
    await this.#putList(digest, chunks, options);
    this.#lost.delete(digest.key);
  }

  /** Returns how a chunk of a blob is read. */
  fetchOf(digest: B3Digest, list: StoredList): FetchChunk {
    return async (chunk, options) => {
      const found = await this.#chunks.get(chunk.digest, chunk.size, options);
      if (found instanceof Uint8Array) {
        if (found.length === chunk.size) return found;
        const reason = `chunk ${chunk.digest} has ${found.length} bytes, listed are ${chunk.size}`;
        throw await this.#lose(digest, list, reason, options);
      }
      // Where it is longer, either the list is wrong or the chunk: reading all of it tells.
      if (found === "longer") await this.#chunks.get(chunk.digest, MAX_CHUNK_BYTES, options);
      const error = await this.#lose(digest, list, `chunk ${chunk.digest} is ${found}`, options);
      // Whoever stored the chunk just now may have found the list in its place, and relied on that.
      const isBack = found !== "longer" && (await this.#chunks.has(chunk.digest, options));
      if (isBack && (await this.look(digest, options)) === undefined) {
        await this.#putList(digest, list.chunks, options);
      }
      throw error;
    };
  }

  async #putList(digest: B3Digest, chunks: ChunkList, options?: AbortOptions): Promise<void> {
    await using upload = this.#store.openUpload(listKey(digest), options);
    for await (const piece of encodeList(chunks)) await upload.write(piece);
    await upload.close();
  }

  /** Tells whether a list is known to be right, or the one whose digest was stored; `undefined` if none was. */
  async #isProven(
    digest: B3Digest,
    { hex }: StoredList,
    options?: AbortOptions,
  ): Promise<boolean | undefined> {
    if (this.#proven.get(digest.key) === hex) return true;
    const object = await this.#store.get(proofKey(digest), { signal: options?.signal });
    if (object === undefined) return undefined;
    const bytes = await collectAtMost(object, B3Digest.LENGTH);
    if (bytes?.length !== B3Digest.LENGTH || B3Digest.fromBytes(bytes).hex !== hex) return false;
    this.#proven.set(digest.key, hex);
    return true;
  }

  async #isReadable(digest: B3Digest, list: StoredList, options?: AbortOptions): Promise<boolean> {
    try {
      await this.#readThrough(digest, list, options);
      return true;
    } catch (error) {
      if (hasCode(error, "data_loss")) return false;
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
    const { chunks } = list;
    const stream = readChunked(chunks, this.fetchOf(digest, list), { signal: options?.signal });
    const fail = (found: B3Digest) =>
      this.#lose(digest, list, `its chunks make up ${found}`, options);
    yield* verifyBlob(stream, { digest, size: chunks.size, fail });
    this.#proven.set(digest.key, list.hex);
    this.#lost.delete(digest.key);
  }

  /** Makes a blob absent that cannot be read, so that putting it again heals. Returns the error that says so. */
  async #lose(
    digest: B3Digest,
    { version, hex }: StoredList,
    reason: string,
    options?: AbortOptions,
  ): Promise<CastoreError> {
    const message = `Cannot read blob ${digest} in ${this.#store.name}: ${reason}`;
    this.#proven.delete(digest.key);
    if (this.#lost.has(digest.key)) return new CastoreError("data_loss", message); // told before
    const again = await this.#damaged.read(listKey(digest), parseList, options);
    if (typeof again === "string" || again.hex !== hex) {
      return new CastoreError("data_loss", message); // the list was damaged on its way, or is gone
    }
    if (!(await this.#damaged.remove(listKey(digest), version, message, options))) {
      this.#lost.set(digest.key, true);
    }
    return new CastoreError("data_loss", message);
  }
}

/** @throws CastoreError `data_loss` for contents that are no list */
async function parseList(contents: ObjectContents): Promise<StoredList> {
  const decoder = new ListDecoder();
  using hasher = new ListHasher();
  for await (const piece of contents) {
    hasher.update(piece);
    if (hasher.length > MAX_LIST_BYTES) {
      const text = `expected a list of chunks of at most ${MAX_LIST_BYTES} bytes, found more`;
      throw new CastoreError("data_loss", text);
    }
    for (let at = 0; at < piece.length; at += DECODE_BYTES) {
      if (at > 0) await yieldToEvents();
      decoder.add(piece.subarray(at, at + DECODE_BYTES));
    }
  }
  return { chunks: decoder.finish(), hex: hasher.digest().hex, version: contents.version };
}

/** @throws CastoreError `resource_exhausted` for a list that is too long */
async function digestOfList(
  digest: B3Digest,
  chunks: ChunkList,
  options?: AbortOptions,
): Promise<B3Digest> {
  using hasher = new ListHasher();
  for await (const piece of encodeList(chunks)) {
    options?.signal?.throwIfAborted();
    hasher.update(piece);
  }
  if (hasher.length <= MAX_LIST_BYTES) return hasher.digest();
  throw new CastoreError(
    "resource_exhausted",
    `Cannot store blob ${digest}: expected a list of chunks of at most ${MAX_LIST_BYTES} bytes, ` +
      `found ${hasher.length}. Larger chunks make it shorter`,
  );
}

/** Hashes an encoded list that comes in pieces. To be disposed of, which frees memory. */
class ListHasher implements Disposable {
  #hasher: Blake3Hasher | undefined = blake3.createHasher();
  length = 0;

  update(piece: Uint8Array): void {
    this.#hasher?.update(piece);
    this.length += piece.length;
  }

  /** Returns the digest. Nothing can be added afterwards. */
  digest(): B3Digest {
    const hasher = this.#hasher!;
    this.#hasher = undefined;
    return B3Digest.fromBytes(hasher.digest());
  }

  [Symbol.dispose](): void {
    this.#hasher?.digest();
  }
}

function listKey(digest: B3Digest): string {
  return objectKey("blobs", digest);
}

function proofKey(digest: B3Digest): string {
  return objectKey("lists", digest);
}
