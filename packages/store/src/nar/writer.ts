import {
  type B3Digest,
  BlobPlaces,
  type PathComponent,
  type SymlinkTarget,
  type TreeVisitor,
} from "@tvix/castore";
import {
  CLOSE,
  DIRECTORY,
  ENTRY,
  ENTRY_NODE,
  EXECUTABLE_FILE,
  FILE,
  MAGIC,
  NUMBER_LENGTH,
  paddingLength,
  SYMLINK,
} from "./wire.ts";

/** Size of the buffers in which small pieces are collected, in bytes. */
const BUFFER_SIZE = 64 * 1024;

/** A buffer with less room than this after it was passed on is replaced, in bytes. */
const MIN_ROOM = BUFFER_SIZE / 2;

/** Pieces of file contents of at least this many bytes are passed on without a copy. */
const PASS_THROUGH = 16 * 1024;

const EMPTY = new Uint8Array(0);

/**
 * Receives the bytes of a NAR, in order.
 *
 * @param offset offset of the first of them in the NAR
 * @param gaps contents that the receiver has to read into the bytes, at their places in the buffer; `undefined` if there are
 *   none
 */
export type NarSink = (bytes: Uint8Array, offset: number, gaps: BlobPlaces | undefined) => void;

/** A place in a NAR: its beginning, or that of an entry. */
export interface NarPlace {
  /** Offset in the NAR, in bytes. */
  readonly offset: number;
  /** How many directories enclose it. */
  readonly depth: number;
}

/**
 * Writes the NAR of a tree that it visits in canonical order. The sink receives a buffer whenever one is
 * full; {@link NarWriter.finish} writes the rest. The caller guarantees the order, the names and the
 * sizes.
 */
export class NarWriter implements TreeVisitor {
  readonly #sink: NarSink;
  /** Returns another buffer; `undefined` where buffers of our own are used up part by part. */
  readonly #newBuffer: ((bytes: number) => Uint8Array) | undefined;
  #buffer: Uint8Array = EMPTY;
  /** Where the bytes in the buffer that are to be passed on start, and end. */
  #start = 0;
  #filled = 0;
  #gaps: BlobPlaces | undefined;
  #depth: number;
  /** Offset of the first of them in the NAR. */
  #flushed: number;
  /** How many bytes of the current file are missing. */
  #missing = 0;
  #padding = 0;

  /**
   * @param sink receives long contents as they were passed in; it may keep the others
   * @param place where to begin. Default: at the beginning of the NAR
   * @param newBuffer returns a buffer of at least so many bytes, which the sink receives once, from its start on, however full it
   *   is. Default: the sink receives parts of buffers that nobody else uses
   */
  constructor(sink: NarSink, place?: NarPlace, newBuffer?: (bytes: number) => Uint8Array) {
    this.#sink = sink;
    this.#newBuffer = newBuffer;
    this.#depth = place?.depth ?? 0;
    this.#flushed = place?.offset ?? 0;
    if (this.#flushed === 0) this.#write(MAGIC);
  }

  /** Offset of the next byte in the NAR. */
  get offset(): number {
    return this.#flushed + this.#filled - this.#start;
  }

  /** How many bytes still fit into the buffer. */
  get room(): number {
    return this.#buffer.length - this.#filled;
  }

  enterDirectory(): void {
    this.#write(DIRECTORY);
    this.#depth += 1;
  }

  entry(name: PathComponent): void {
    this.#write(ENTRY);
    this.#string(name);
    this.#write(ENTRY_NODE);
  }

  leaveDirectory(): void {
    this.#depth -= 1;
    this.#endNode();
  }

  file(size: bigint, executable: boolean): void {
    this.#write(executable ? EXECUTABLE_FILE : FILE);
    this.#missing = Number(size);
    this.#number(this.#missing);
    this.#padding = paddingLength(this.#missing);
    if (this.#missing === 0) this.#endNode();
  }

  contents(data: Uint8Array): void {
    if (data.length >= PASS_THROUGH) {
      this.#flush();
      this.#sink(data, this.#flushed, undefined);
      this.#flushed += data.length;
    } else {
      this.#write(data);
    }
    this.#endContents(data.length);
  }

  /** Leaves a gap for contents, which the receiver of the bytes reads into it. */
  gap(digest: B3Digest, length: number): void {
    this.#makeRoom(length);
    this.#gaps ??= new BlobPlaces();
    this.#gaps.add(digest, this.#filled, length);
    this.#filled += length;
    this.#endContents(length);
  }

  /** Skips contents: the sink does not receive them. */
  skipContents(length: number): void {
    this.#flush();
    this.#flushed += length;
    this.#endContents(length);
  }

  symlink(target: SymlinkTarget): void {
    this.#write(SYMLINK);
    this.#string(target);
    this.#endNode();
  }

  /** Writes the rest; called after the root was visited. */
  finish(): void {
    this.#flush();
  }

  #endContents(length: number): void {
    this.#missing -= length;
    if (this.#missing > 0) return;
    this.#zeros(this.#padding);
    this.#endNode();
  }

  /** Closes a node, and the entry that it belongs to. */
  #endNode(): void {
    this.#write(CLOSE);
    if (this.#depth > 0) this.#write(CLOSE);
  }

  #string(bytes: Uint8Array): void {
    this.#number(bytes.length);
    this.#write(bytes);
    this.#zeros(paddingLength(bytes.length));
  }

  /** Writes a length, which is exact up to 2^53. */
  #number(value: number): void {
    this.#makeRoom(NUMBER_LENGTH);
    this.#half(value % 2 ** 32);
    this.#half(Math.floor(value / 2 ** 32));
  }

  #half(value: number): void {
    for (let i = 0, rest = value; i < NUMBER_LENGTH / 2; i++, rest >>>= 8) {
      this.#buffer[this.#filled++] = rest; // its low 8 bits
    }
  }

  #zeros(count: number): void {
    this.#makeRoom(count);
    for (const end = this.#filled + count; this.#filled < end; ) this.#buffer[this.#filled++] = 0;
  }

  /** Writes at most {@link PASS_THROUGH} bytes: names, targets, tokens and small contents. */
  #write(bytes: Uint8Array): void {
    this.#makeRoom(bytes.length);
    this.#buffer.set(bytes, this.#filled);
    this.#filled += bytes.length;
  }

  /** Sees to it that so many bytes fit into the buffer. */
  #makeRoom(length: number): void {
    if (this.#filled + length <= this.#buffer.length) return;
    this.#flush();
    if (this.#filled + length <= this.#buffer.length) return;
    this.#buffer = this.#newBuffer?.(length) ?? Buffer.allocUnsafeSlow(BUFFER_SIZE);
    this.#start = 0;
    this.#filled = 0;
  }

  #flush(): void {
    const bytes = this.#buffer.subarray(this.#start, this.#filled);
    if (bytes.length === 0) return;
    const gaps = this.#gaps;
    this.#gaps = undefined;
    this.#start = this.#filled;
    const isUsedUp = this.#newBuffer !== undefined || this.#buffer.length - this.#start < MIN_ROOM;
    if (isUsedUp) {
      this.#buffer = EMPTY;
      this.#start = 0;
      this.#filled = 0;
    }
    const offset = this.#flushed;
    this.#flushed += bytes.length;
    this.#sink(bytes, offset, gaps);
  }
}
