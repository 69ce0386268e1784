import { crc32 } from "node:zlib";
import type { ByteRange, Content } from "../exchange.ts";
import type { StoredFormat } from "./stored-format.ts";

/** Bytes of known length, of which any part can be read: at least one, in pieces that may be lent. */
export type SeekableContents = Pick<Content, "size" | "read">;

/** How many blocks a segment has. */
const BLOCKS = 16;

/**
 * A compressed file whose contents are not compressed. Reading a part of it reads the segments that the part is in, about
 * 1 MiB each.
 */
export class StoredFile implements SeekableContents {
  readonly #format: StoredFormat;
  readonly #contents: SeekableContents;
  readonly #segments: number;
  /** Bytes of contents in a segment, and in the last one. */
  readonly #full: number;
  readonly #last: number;
  readonly #tail: Uint8Array;

  constructor(format: StoredFormat, contents: SeekableContents) {
    this.#format = format;
    this.#contents = contents;
    this.#full = format.maxBlock * BLOCKS;
    this.#segments = Math.ceil(contents.size / this.#full);
    this.#last = contents.size - (this.#segments - 1) * this.#full;
    this.#tail = format.tail(this.#segments, this.#full, this.#last);
  }

  get size(): number {
    return this.#tailAt + this.#tail.length;
  }

  /** Reads a part of the file, in pieces that belong to the reader. Iterating throws what reading the contents throws. */
  async *read({ offset, length }: ByteRange, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const end = Math.min(offset + length, this.size);
    /** The part of bytes that stand `at` a place of the file. */
    const wanted = (bytes: Uint8Array, at: number) =>
      bytes.subarray(Math.max(offset - at, 0), Math.max(end - at, 0));
    const { head } = this.#format;
    if (offset < head.length && end > 0) yield wanted(head, 0);
    const step = this.#lengthOf(this.#full);
    const first = Math.max(Math.floor((offset - head.length) / step), 0);
    const behind = Math.min(Math.ceil((end - head.length) / step), this.#segments);
    if (first < behind && offset < this.#tailAt) {
      let index = first;
      const start = first * this.#full;
      const size = Math.min(behind * this.#full, this.#contents.size) - start;
      const contents = this.#contents.read({ offset: start, length: size }, signal);
      for await (const segment of this.#wrap(contents, size)) {
        const part = wanted(segment, head.length + index * step);
        if (part.length > 0) yield part;
        index += 1;
      }
    }
    const rest = wanted(this.#tail, this.#tailAt);
    if (rest.length > 0) yield rest;
  }

  get #tailAt(): number {
    const before = (this.#segments - 1) * this.#lengthOf(this.#full);
    return this.#format.head.length + before + this.#lengthOf(this.#last);
  }

  /** Length of a segment of `size` bytes of contents. */
  #lengthOf(size: number): number {
    const { prefix, maxBlock, blockHeaderLength } = this.#format;
    const blocks = Math.ceil(size / maxBlock) * blockHeaderLength;
    return prefix.length + blocks + size + this.#format.suffixLength(size);
  }

  /** Makes segments of `size` bytes of contents. */
  async *#wrap(contents: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<Uint8Array> {
    let left = size;
    let segment = this.#begin(left);
    for await (const data of contents) {
      for (let at = 0; at < data.length && left > 0; ) {
        const taken = segment.add(data.subarray(at));
        at += taken;
        left -= taken;
        if (!segment.isFull) continue;
        yield segment.end();
        if (left > 0) segment = this.#begin(left);
      }
    }
    if (left > 0) throw new Error(`expected ${left} more bytes of contents, found the end`);
  }

  #begin(left: number): Segment {
    const size = Math.min(left, this.#full);
    return new Segment(this.#format, size, this.#lengthOf(size));
  }
}

/** A segment whose contents arrive in pieces. */
class Segment {
  readonly #format: StoredFormat;
  readonly #size: number;
  readonly #bytes: Buffer;
  /** Length of what was written, and of the contents in it. */
  #at: number;
  #contents = 0;
  #crc = 0;

  constructor(format: StoredFormat, size: number, length: number) {
    this.#format = format;
    this.#size = size;
    this.#bytes = Buffer.allocUnsafe(length);
    this.#bytes.set(format.prefix);
    this.#at = format.prefix.length;
    this.#beginBlock();
  }

  get isFull(): boolean {
    return this.#contents === this.#size;
  }

  /** Copies bytes to the end of the block that was begun last, and returns how many. */
  add(data: Uint8Array): number {
    const { maxBlock } = this.#format;
    const room = Math.min(maxBlock - (this.#contents % maxBlock), this.#size - this.#contents);
    const taken = data.subarray(0, room);
    this.#bytes.set(taken, this.#at);
    this.#crc = crc32(taken, this.#crc);
    this.#at += taken.length;
    this.#contents += taken.length;
    if (taken.length === room && !this.isFull) this.#beginBlock();
    return taken.length;
  }

  /** Adds the suffix, and returns the segment. */
  end(): Uint8Array {
    this.#format.writeSuffix(this.#bytes, this.#at, this.#size, this.#crc);
    return this.#bytes;
  }

  #beginBlock(): void {
    const { maxBlock, blockHeaderLength } = this.#format;
    const left = this.#size - this.#contents;
    const block = {
      length: Math.min(left, maxBlock),
      isFirst: this.#contents === 0,
      isLast: left <= maxBlock,
    };
    this.#format.writeBlockHeader(this.#bytes, this.#at, block);
    this.#at += blockHeaderLength;
  }
}
