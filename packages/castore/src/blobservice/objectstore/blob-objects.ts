import type { AbortOptions } from "../../bytes/abort-options.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { ChunkList } from "../chunk-list.ts";
import type { ChunkObjects } from "./chunk-objects.ts";
import type { ListedBlobs } from "./listed-blobs.ts";

/** How many absent blobs are remembered. */
const KNOWN_ABSENT = 4096;

const EMPTY = blake3Digest(new Uint8Array(0));
const NONE = ChunkList.of([]);

/** Which objects of a blob there are. */
interface FoundObjects {
  readonly list: "cut" | "whole" | undefined;
  readonly hasChunk: boolean;
}

const ABSENT: FoundObjects = { list: undefined, hasChunk: false };

/** Tells which of its two objects, a chunk and a list, a blob has, and makes blobs of chunks. */
export class BlobObjects {
  readonly #chunks: ChunkObjects;
  readonly #lists: ListedBlobs;
  /**
   * Blobs that were absent when they were looked up, by digest. Most are put next, and need not be looked up again: if
   * somebody else has put one meanwhile, it is replaced by the same.
   */
  readonly #absent = new Set<string>();

  constructor(chunks: ChunkObjects, lists: ListedBlobs) {
    this.#chunks = chunks;
    this.#lists = lists;
  }

  /** Tells whether there is a blob, or a chunk of that digest. */
  async has(digest: B3Digest, options?: AbortOptions): Promise<boolean> {
    const { list, hasChunk } = await this.#look(digest, options);
    if (hasChunk || list === "cut") return true;
    if (this.#absent.size === KNOWN_ABSENT) this.#absent.clear();
    this.#absent.add(digest.key);
    return false;
  }

  /**
   * Makes a blob of one chunk, unless it is there.
   *
   * @param putChunk stores the chunk; is called unless that is there
   */
  async putWhole(
    digest: B3Digest,
    putChunk: () => Promise<void>,
    options?: AbortOptions,
  ): Promise<void> {
    const isAbsent = this.#absent.delete(digest.key);
    const { list, hasChunk } = isAbsent ? ABSENT : await this.#look(digest, options);
    if (list === "cut") return;
    if (!hasChunk) await putChunk();
    if (!hasChunk || list === undefined) await this.#lists.put(digest, NONE, options);
  }

  /** Stores the list of a blob whose chunks are stored. To be called after that: who deletes lists relies on it. */
  async commit(digest: B3Digest, chunks: ChunkList, options?: AbortOptions): Promise<void> {
    const isCut = chunks.length > 1;
    const lost = await this.#chunks.findLost(chunks, options);
    if (lost !== undefined) {
      const text = `Cannot store blob ${digest}: chunk ${lost} was found damaged meanwhile`;
      throw new CastoreError("aborted", text);
    }
    if (!this.#absent.delete(digest.key)) {
      const list = await this.#lists.look(digest, options);
      // A list that says that the blob is one chunk does not lead to several.
      if (list === "cut" || (list === "whole" && !isCut)) return;
      if (list === "whole" && (await this.#chunks.has(digest, options))) return;
    }
    await this.#lists.put(digest, isCut ? chunks : NONE, options);
  }

  /** Looks up both objects that a blob may be. */
  async #look(digest: B3Digest, options?: AbortOptions): Promise<FoundObjects> {
    options?.signal?.throwIfAborted();
    const looking = this.#lists.look(digest, options);
    if (digest.equals(EMPTY)) {
      const list = await looking;
      return { list, hasChunk: list !== undefined }; // there is none to be had
    }
    const [list, hasChunk] = await Promise.all([looking, this.#chunks.has(digest, options)]);
    return { list, hasChunk };
  }
}
