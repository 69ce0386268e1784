import { ChunkList } from "@tvix/castore/chunk-list";
import { verifyStored } from "@tvix/castore/stored-contents";
import { LRUCache } from "lru-cache";
import { ContentRing } from "./content-ring.ts";
import { type ContentsNeed, type Held, lengthOf, type Need, type Supplies } from "./need.ts";
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
/** How much is held of what was decompressed, in bytes: the next read may go on in it. */
const RECENT_BYTES = 2 * 1024 * 1024;
/** Longest read of the kernel for which there is memory, in bytes: the longest that it makes. */
const LONGEST_READ = MAX_PAGES * 4096;

type FileNode = PackedNode & { type: "file" };

interface Range {
  readonly start: number;
  readonly end: number;
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
  /** Contents that were fetched, in the form that they came in: most are a third as long then. */
  readonly #kept: ContentRing;
  /** Contents that were decompressed and not read to their end. Memory that the processor has in its cache is faster. */
  readonly #recent = new ContentRing(RECENT_BYTES);
  readonly #pattern = new ReadPattern(AHEAD);
  readonly #readBuffer = Buffer.allocUnsafeSlow(LONGEST_READ);

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
    this.#kept = new ContentRing(cacheBytes);
  }

  /** Whether contents are held. */
  has(key: string): boolean {
    return this.#recent.has(key) || this.#kept.has(key);
  }

  /** Keeps the list of chunks of a file. It is copied. */
  keepList(key: string, list: Uint8Array): void {
    this.#lists.set(key, ChunkList.fromBytes(list.slice()));
  }

  /**
   * Keeps contents that were fetched. They are copied, if they are not too long.
   *
   * @returns the contents, which are valid as long as those that were given, or until others are kept
   */
  keep({ key }: ContentsNeed, contents: Held): Held {
    this.#kept.set(key, contents);
    return this.#kept.get(key) ?? contents;
  }

  /**
   * Reads a range of a file that is not empty. What the outcome has is valid until the next call.
   *
   * @param id of its inode: reads of one file are taken together, to read ahead
   */
  read(id: number, node: FileNode, range: Range, fetched: Fetched): Outcome {
    return isSmall(node)
      ? this.#readRow([smallFile(node)], range, fetched, node)
      : this.#readChunks(id, node, range, fetched);
  }

  #readChunks(id: number, node: FileNode, { start, end }: Range, fetched: Fetched): Outcome {
    const { digest, size } = node;
    const key = `list ${digest}`;
    const packed = fetched.get(key) as Supplies["list"] | undefined;
    const list = packed ? ChunkList.fromBytes(packed) : this.#lists.get(key);
    if (list === undefined) return wait({ type: "list", key, digest, size });
    const first = list.indexAt(start);
    const origin = list.offsetAt(first);
    const range = { start: start - origin, end: end - origin };
    const outcome = this.#readRow(chunksFrom(digest, list, first, origin), range, fetched, node);
    const isAtHand = outcome.type === "reply" && this.#atHand !== undefined;
    if (fetched.size > 0 || isAtHand) return outcome;
    const ahead = this.#pattern.note(id, start, end);
    if (ahead === undefined) return outcome;
    for (const need of chunksFrom(digest, list, first, origin)) {
      if (need.offset >= ahead.to) break;
      const isBehind = need.offset >= end;
      if (isBehind && !this.has(need.key)) this.#fetchAhead(need);
    }
    return outcome;
  }

  /**
   * Reads a range of contents in a row, up to its end, or tells which of them are missing.
   *
   * @param range begins in the first of them
   */
  #readRow(
    row: Iterable<ContentsNeed>,
    { start, end }: Range,
    fetched: Fetched,
    { size }: FileNode,
  ): Outcome {
    const fits = end - start <= this.#readBuffer.length;
    const out = fits ? this.#readBuffer : Buffer.allocUnsafeSlow(end - start);
    const missing: Need[] = [];
    let offset = 0;
    for (const need of row) {
      const { key } = need;
      const length = lengthOf(need);
      const isLast = offset + length >= end;
      const [from, to] = [Math.max(start - offset, 0), Math.min(end - offset, length)];
      const target = out.subarray(offset + from - start, offset + to - start);
      // A file that can be held whole is, decompressed; but what was fetched stays where it is until it was read.
      const isWorth = isLast && (size <= this.#cacheBytes / 2 || length > this.#recent.longest);
      const held = (fetched.get(key) as Held | undefined) ?? this.#kept.get(key);
      if (missing.length > 0) {
        if (held === undefined && !this.#recent.has(key)) missing.push(need);
      } else if (!this.#readPart(need, { from, target, held, isWorth })) {
        this.#kept.delete(key);
        missing.push(held === undefined ? need : { ...need, asContents: true }); // the store then tells why
      }
      if (isLast) break;
      offset += length;
    }
    if (missing.length > 0) return { type: "wait", needs: missing };
    return reply(out.subarray(0, end - start));
  }

  /**
   * Reads a part of contents.
   *
   * @param options.held the contents, if they were fetched
   * @param options.isWorth whether they are kept as they are read
   * @returns whether they were there, and match their digest
   */
  #readPart(
    need: ContentsNeed,
    options: { from: number; target: Buffer; held: Held | undefined; isWorth: boolean },
  ): boolean {
    const { from, target, held, isWorth } = options;
    const { key } = need;
    const length = lengthOf(need);
    const take = (contents: Uint8Array) => {
      target.set(contents.subarray(from, from + target.length));
      return true;
    };
    if (held?.form === "verified") return take(held.bytes);
    const recent = this.#recent.get(key);
    if (recent !== undefined) return take(recent.bytes);
    const read = (into: Uint8Array) =>
      held === undefined ? this.#readAtHand(need, into) : decode(need, held, into);
    if (target.length === length) return read(target);
    let contents: Uint8Array | undefined;
    if (length <= this.#recent.longest) {
      contents = this.#recent.fill(key, length, read);
      if (contents === undefined) return false;
    } else {
      contents = new Uint8Array(length);
      if (!read(contents)) return false;
    }
    if (isWorth) {
      this.#kept.delete(key);
      this.#kept.set(key, { bytes: contents, form: "verified" });
    }
    return take(contents);
  }

  #readAtHand(need: ContentsNeed, target: Uint8Array): boolean {
    return this.#atHand?.read(digestIn(need), target) ?? false;
  }
}

/** Whether a file is fetched whole, without its list of chunks. */
export function isSmall({ size }: FileNode): boolean {
  return size <= SMALL_FILE;
}

/** Returns what has to be fetched of a small file. */
export function smallFile({ digest, size }: FileNode): Need & { type: "file" } {
  return { type: "file", key: `file ${digest}${size}`, digest, size };
}

/** Returns the chunks of a blob from one on, which begins at that offset. */
function* chunksFrom(
  digest: string,
  list: ChunkList,
  first: number,
  origin: number,
): Generator<Need & { type: "chunk" }> {
  for (let index = first, offset = origin; index < list.length; index++) {
    const at = list.bytes.byteOffset + index * ChunkList.ENTRY_BYTES;
    const chunk = Buffer.from(list.bytes.buffer, at, 32).toString("latin1");
    const length = list.sizeAt(index);
    yield { type: "chunk", key: `chunk ${chunk}`, digest, chunk, offset, length };
    offset += length;
  }
}

/** Returns the digest of contents. */
function digestIn(need: ContentsNeed): string {
  return need.type === "chunk" ? need.chunk : need.digest;
}

/** Decompresses contents, and tells whether they match their digest. */
function decode(need: ContentsNeed, { bytes, form }: Held, target: Uint8Array): boolean {
  const stored = form === "frame" ? { frame: bytes } : { contents: bytes };
  return verifyStored(stored, Buffer.from(digestIn(need), "latin1"), target);
}
