import { ChunkList } from "@tvix/castore/chunk-list";
import { verifyStored } from "@tvix/castore/stored-contents";
import { LRUCache } from "lru-cache";
import { ContentRing } from "./content-ring.ts";
import { type ContentsNeed, type Form, lengthOf, type Need } from "./need.ts";
import { type Fetched, type Outcome, reply, wait } from "./outcome.ts";
import type { PackedNode } from "./packed-directory.ts";
import { MAX_PAGES } from "./protocol/reply.ts";
import { ReadPattern } from "./read-pattern.ts";

/** Contents that are at hand: verified, and read without waiting for a store. */
export interface ContentsAtHand {
  /**
   * Reads a file of one chunk, or a chunk.
   *
   * @param digest its 32 bytes as characters U+0000 to U+00FF
   * @param target takes the contents: as long as they are expected to be
   * @returns whether they were there
   */
  read(digest: string, target: Uint8Array): boolean;
}

/** Files up to this length are fetched whole, without their list of chunks. */
const SMALL_FILE = 128 * 1024;

/** Limit of the lists of chunks that are kept, in bytes. */
const LIST_BYTES = 8 * 1024 * 1024;
/** How much is read ahead in a file, in bytes. */
const AHEAD = { first: 256 * 1024, most: 4 * 1024 * 1024, tolerance: 512 * 1024 };
/** How much is held of files that are longer than half of what is held, in bytes. */
const RECENT_BYTES = 2 * 1024 * 1024;
/** Longest read of the kernel that is answered from contents at hand, in bytes: the longest that it makes. */
const LONGEST_READ = MAX_PAGES * 4096;

/** Stands for contents that do not match their digest. */
export const WRONG: unique symbol = Symbol("wrong");

type FileNode = PackedNode & { type: "file" };

interface Range {
  readonly start: number;
  readonly end: number;
}

/** A file of one chunk, or a chunk. */
interface Part {
  readonly key: string;
  readonly digest: string;
  readonly length: number;
}

/** Reads files, from what was fetched, from what it holds, or from contents at hand. */
export class FileContents {
  readonly #cacheBytes: number;
  readonly #atHand: ContentsAtHand | undefined;
  readonly #fetchAhead: (need: Need) => void;
  readonly #lists = new LRUCache<string, ChunkList>({
    maxSize: LIST_BYTES,
    sizeCalculation: ({ bytes }) => bytes.length + 200,
  });
  readonly #contents: ContentRing;
  /**
   * Chunks at hand of files that are too long to be held: the next read may go on in one. They would push out everything else,
   * and decompressing into memory that the processor has in its cache saves a fifth of the time.
   */
  readonly #recent = new ContentRing(RECENT_BYTES);
  readonly #pattern = new ReadPattern(AHEAD);
  readonly #readBuffer: Buffer;

  /**
   * @param options.cacheBytes limit of the contents that are held for the next reads, in bytes
   * @param options.atHand is asked for contents before they are fetched. Default: nothing is at hand
   * @param options.fetchAhead is told what is worth fetching before anybody asks for it
   */
  constructor(options: {
    cacheBytes: number;
    atHand: ContentsAtHand | undefined;
    fetchAhead: (need: Need) => void;
  }) {
    const { cacheBytes, atHand, fetchAhead } = options;
    this.#cacheBytes = cacheBytes;
    this.#atHand = atHand;
    this.#fetchAhead = fetchAhead;
    this.#readBuffer = Buffer.allocUnsafeSlow(atHand === undefined ? 0 : LONGEST_READ);
    this.#contents = new ContentRing(cacheBytes);
  }

  /** Whether contents are held. */
  has(key: string): boolean {
    return this.#contents.has(key);
  }

  /** Keeps the list of chunks of a file. It is copied. */
  keepList(key: string, list: Uint8Array): void {
    this.#lists.set(key, ChunkList.fromBytes(list.slice()));
  }

  /**
   * Keeps contents that were fetched. They are copied.
   *
   * @returns the contents, which are valid until others are kept; {@link WRONG} for those that do not match their digest
   */
  keep(need: ContentsNeed, bytes: Uint8Array, form: Form | undefined): Uint8Array | typeof WRONG {
    const held = this.#contents.get(need.key);
    if (held !== undefined) return held;
    if (form !== "stored" && form !== "frame") {
      this.#contents.set(need.key, bytes);
      return bytes;
    }
    const digest = Buffer.from(need.type === "chunk" ? need.chunk : need.digest, "latin1");
    const stored = form === "frame" ? { frame: bytes } : { contents: bytes };
    let isRight: boolean | undefined;
    const take = (target: Uint8Array) => {
      isRight = verifyStored(stored, digest, target);
      return isRight;
    };
    const length = lengthOf(need);
    const kept = this.#contents.fill(need.key, length, take);
    if (kept !== undefined) return kept;
    if (isRight === false) return WRONG;
    const contents = new Uint8Array(length); // longer than what is held
    return take(contents) ? contents : WRONG;
  }

  /**
   * Reads a range of a file that is not empty.
   *
   * @param id of its inode: reads of one file are taken together, to read ahead
   */
  read(id: number, node: FileNode, range: Range, fetched: Fetched): Outcome {
    return isSmall(node)
      ? this.#readSmall(node, range, fetched)
      : this.#readChunks(id, node, range, fetched);
  }

  #readSmall(node: FileNode, { start, end }: Range, fetched: Fetched): Outcome {
    const need = smallFile(node);
    const contents = (fetched.get(need.key) as Uint8Array) ?? this.#contents.get(need.key);
    if (contents !== undefined) return reply(contents.subarray(start, end));
    const part = { key: need.key, digest: node.digest, length: node.size };
    const read = this.#readAtHand([part], { start, end }, this.#contents);
    return read === undefined ? wait(need) : reply(read);
  }

  #readChunks(id: number, node: FileNode, { start, end }: Range, fetched: Fetched): Outcome {
    const { digest, size } = node;
    const key = `list ${digest}`;
    const packed = fetched.get(key) as Uint8Array | undefined;
    const list = packed ? ChunkList.fromBytes(packed) : this.#lists.get(key);
    if (list === undefined) return wait({ type: "list", key, digest, size });
    const first = list.indexAt(start);
    const origin = list.offsetAt(first);
    const range = { start: start - origin, end: end - origin };
    const ring = size > this.#cacheBytes / 2 ? this.#recent : this.#contents;
    // What was fetched is valid until something is written into a ring.
    const isFetched = fetched.size > (packed === undefined ? 0 : 1);
    const read = isFetched
      ? undefined
      : this.#readAtHand(chunksFrom(digest, list, first), range, ring);
    if (read !== undefined) return reply(read);
    const parts: Uint8Array[] = [];
    const needs: Need[] = [];
    let offset = origin;
    let index = first;
    for (; index < list.length && offset < end; index++) {
      const need = chunkOf(digest, list, index, offset);
      const chunk = (fetched.get(need.key) as Uint8Array) ?? this.#contents.get(need.key);
      if (chunk === undefined) needs.push(need);
      else parts.push(chunk.subarray(Math.max(start - offset, 0), end - offset));
      offset += need.length;
    }
    if (fetched.size === 0) {
      const ahead = this.#pattern.note(id, start, end);
      for (; ahead && index < list.length && offset < ahead.to; index++) {
        const need = chunkOf(digest, list, index, offset);
        if (!this.#contents.has(need.key)) this.#fetchAhead(need);
        offset += need.length;
      }
    }
    return needs.length > 0 ? { type: "wait", needs } : reply(...parts);
  }

  /**
   * Reads a range of some contents in a row that are at hand, up to its end; `undefined` if one of them is not. It is valid until
   * the next request.
   *
   * @param range begins in the first of them
   * @param ring holds those that are read in part
   */
  #readAtHand(
    row: Iterable<Part>,
    { start, end }: Range,
    ring: ContentRing,
  ): Uint8Array | undefined {
    const atHand = this.#atHand;
    if (atHand === undefined || end - start > this.#readBuffer.length) return undefined;
    const out = this.#readBuffer.subarray(0, end - start);
    let offset = 0;
    for (const { key, digest, length } of row) {
      const [from, to] = [Math.max(start - offset, 0), Math.min(end - offset, length)];
      const target = out.subarray(Math.max(offset - start, 0), offset + to - start);
      const held = this.#recent.get(key) ?? this.#contents.get(key);
      if (held === undefined && target.length === length) {
        if (!atHand.read(digest, target)) return undefined;
      } else {
        const read = (target: Uint8Array) => atHand.read(digest, target);
        const contents =
          held ?? ring.fill(key, length, read) ?? this.#contents.fill(key, length, read);
        if (contents === undefined) return undefined;
        target.set(contents.subarray(from, to));
      }
      offset += length;
      if (offset >= end) return out;
    }
    return undefined;
  }
}

/** Whether a file is fetched whole, without its list of chunks. */
export function isSmall({ size }: FileNode): boolean {
  return size <= SMALL_FILE;
}

/** Returns what has to be fetched of a small file. */
export function smallFile({ digest, size }: FileNode): Need {
  return { type: "file", key: `file ${digest}${size}`, digest, size };
}

function chunkOf(
  digest: string,
  list: ChunkList,
  index: number,
  offset: number,
): Need & { type: "chunk" } {
  const at = index * ChunkList.ENTRY_BYTES;
  const chunk = Buffer.from(list.bytes.buffer, list.bytes.byteOffset + at, 32).toString("latin1");
  const length = list.sizeAt(index);
  return { type: "chunk", key: `chunk ${chunk}`, digest, chunk, offset, length };
}

/** Returns the chunks of a blob from one on. */
function* chunksFrom(digest: string, list: ChunkList, first: number): Generator<Part> {
  for (let index = first; index < list.length; index++) {
    const { key, chunk, length } = chunkOf(digest, list, index, 0);
    yield { key, digest: chunk, length };
  }
}
