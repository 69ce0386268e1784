import { asPlainBytes, equalBytes } from "../bytes/byte-string.ts";
import { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { MAX_CHUNK_BYTES } from "../model/limits.ts";

/** One of the pieces that a blob is cut into, in order. */
export interface ChunkMeta {
  /** BLAKE3 digest of the piece. */
  readonly digest: B3Digest;
  /** Length of the piece in bytes. */
  readonly size: number;
}

const ENTRY_BYTES = B3Digest.LENGTH + 4;

/** How many chunks lie between two checkpoints, which hold the offset of a chunk in the blob. */
const STRIDE = 64;

/** Lists up to this length are copied out of the buffer that they grew in, which may be twice as long. */
const COPIED_BYTES = 1024 * 1024;

/**
 * The chunks of a blob in order, packed: 36 bytes each, digest (32), then length (unsigned 32 bits, little-endian).
 * Immutable.
 */
export class ChunkList implements Iterable<ChunkMeta> {
  /** Length of the entry of a chunk in bytes. */
  static readonly ENTRY_BYTES: number = ENTRY_BYTES;

  /** The packed list, not to be changed. */
  readonly bytes: Uint8Array;
  /** How many chunks there are. */
  readonly length: number;
  /** Length of the blob in bytes. */
  readonly size: number;
  readonly #view: DataView;
  /** The offset of every 64th chunk. */
  readonly #checkpoints: readonly number[];

  private constructor(bytes: Uint8Array, checkpoints: readonly number[], size: number) {
    // A Buffer would make every digest one.
    this.bytes = asPlainBytes(bytes);
    this.length = bytes.length / ENTRY_BYTES;
    this.size = size;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#checkpoints = checkpoints;
  }

  /**
   * Takes packed bytes as a list, without a copy. Looks at all of them, which takes milliseconds for millions of
   * chunks: {@link ChunkListBuilder.append} does so in steps.
   *
   * @throws CastoreError `data_loss` unless the length is a multiple of 36 and each chunk has 1 to 8 MiB
   */
  static fromBytes(bytes: Uint8Array): ChunkList {
    const checkpoints: number[] = [];
    return new ChunkList(bytes, checkpoints, checkEntries(bytes, 0, 0, checkpoints));
  }

  /**
   * Packs chunks.
   *
   * @throws CastoreError `data_loss` for a chunk that has not 1 to 8 MiB
   */
  static of(chunks: Iterable<ChunkMeta>): ChunkList {
    const builder = new ChunkListBuilder();
    for (const { digest, size } of chunks) builder.push(digest, size);
    return builder.finish();
  }

  /** Makes a list of bytes that were checked. Of use to the builder alone. */
  static fromChecked(bytes: Uint8Array, checkpoints: readonly number[], size: number): ChunkList {
    return new ChunkList(bytes, checkpoints, size);
  }

  /** Returns a chunk, whose digest is a part of the list. */
  at(index: number): ChunkMeta {
    return { digest: this.digestAt(index), size: this.sizeAt(index) };
  }

  /** Returns the digest of a chunk, which is a part of the list. */
  digestAt(index: number): B3Digest {
    this.#expectIndex(index);
    const at = index * ENTRY_BYTES;
    return B3Digest.fromBytes(this.bytes.subarray(at, at + B3Digest.LENGTH));
  }

  /** Returns the length of a chunk in bytes. */
  sizeAt(index: number): number {
    this.#expectIndex(index);
    return this.#view.getUint32(index * ENTRY_BYTES + B3Digest.LENGTH, true);
  }

  /** Returns where a chunk begins in the blob. */
  offsetAt(index: number): number {
    this.#expectIndex(index);
    const checkpoint = Math.floor(index / STRIDE);
    let offset = this.#checkpoints[checkpoint]!;
    for (let i = checkpoint * STRIDE; i < index; i++) offset += this.sizeAt(i);
    return offset;
  }

  /**
   * Returns the index of the chunk that holds the byte at an offset.
   *
   * @throws RangeError for an offset at or past the end of the blob
   */
  indexAt(offset: number): number {
    if (!(offset >= 0 && offset < this.size)) {
      throw new RangeError(`Cannot find byte ${offset} of a blob of ${this.size} bytes`);
    }
    let [low, high] = [0, this.#checkpoints.length];
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (this.#checkpoints[middle]! <= offset) low = middle;
      else high = middle;
    }
    let index = low * STRIDE;
    let end = this.#checkpoints[low]! + this.sizeAt(index);
    while (end <= offset) {
      index += 1;
      end += this.sizeAt(index);
    }
    return index;
  }

  /** Whether both list the same chunks. */
  equals(other: ChunkList): boolean {
    return equalBytes(this.bytes, other.bytes);
  }

  *[Symbol.iterator](): Generator<ChunkMeta> {
    for (let i = 0; i < this.length; i++) yield this.at(i);
  }

  /** Divides the chunks, in order, into runs of up to so many chunks and bytes. A longer chunk is one of its own. */
  *batches(maxChunks: number, maxBytes: number): Generator<readonly ChunkMeta[]> {
    for (let next = 0; next < this.length; ) {
      const batch: ChunkMeta[] = [];
      for (let bytes = 0; next < this.length && batch.length < maxChunks; next++) {
        bytes += this.sizeAt(next);
        if (bytes > maxBytes && batch.length > 0) break;
        batch.push(this.at(next));
      }
      yield batch;
    }
  }

  #expectIndex(index: number): void {
    if (Number.isInteger(index) && index >= 0 && index < this.length) return;
    throw new RangeError(`Cannot find chunk ${index} in a list of ${this.length}`);
  }
}

/** Packs the chunks of a blob as they become known, in one buffer that grows by doubling. */
export class ChunkListBuilder {
  #bytes: Uint8Array;
  #filled = 0;
  #size = 0;
  readonly #checkpoints: number[] = [];

  /** @param capacity how many chunks there is room for at first */
  constructor(capacity = 4) {
    this.#bytes = new Uint8Array(capacity * ENTRY_BYTES);
  }

  /** How many chunks there are so far. */
  get length(): number {
    return this.#filled / ENTRY_BYTES;
  }

  /** How many bytes they have together. */
  get size(): number {
    return this.#size;
  }

  /**
   * Adds a chunk, of whose digest a copy is kept.
   *
   * @throws CastoreError `data_loss` unless it has 1 to 8 MiB
   */
  push(digest: B3Digest, size: number): void {
    expectSize(size, this.length);
    this.#reserve(ENTRY_BYTES);
    const at = this.#filled;
    this.#bytes.set(digest.bytes, at);
    new DataView(this.#bytes.buffer).setUint32(at + B3Digest.LENGTH, size, true);
    if (this.length % STRIDE === 0) this.#checkpoints.push(this.#size);
    this.#filled += ENTRY_BYTES;
    this.#size += size;
  }

  /**
   * Adds packed chunks, which are copied.
   *
   * @throws CastoreError `data_loss` unless the length is a multiple of 36 and each chunk has 1 to 8 MiB
   */
  append(bytes: Uint8Array): void {
    this.#size = checkEntries(bytes, this.length, this.#size, this.#checkpoints);
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#filled);
    this.#filled += bytes.length;
  }

  /** Returns the list. Nothing can be added afterwards. */
  finish(): ChunkList {
    const all = this.#bytes.subarray(0, this.#filled);
    const isSmall = this.#filled <= COPIED_BYTES && this.#filled < this.#bytes.length;
    const bytes = isSmall ? all.slice() : all;
    return ChunkList.fromChecked(bytes, this.#checkpoints, this.#size);
  }

  #reserve(count: number): void {
    if (this.#filled + count <= this.#bytes.length) return;
    const bytes = new Uint8Array(Math.max(this.#bytes.length * 2, this.#filled + count));
    bytes.set(this.#bytes);
    this.#bytes = bytes;
  }
}

/** Checks packed entries, notes their checkpoints, and returns where the last of them ends in the blob. */
function checkEntries(
  bytes: Uint8Array,
  firstIndex: number,
  start: number,
  checkpoints: number[],
): number {
  if (bytes.length % ENTRY_BYTES !== 0) {
    throw new CastoreError(
      "data_loss",
      `Cannot use a list of chunks: expected a multiple of ${ENTRY_BYTES} bytes, found ${bytes.length}`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let index = firstIndex;
  let offset = start;
  for (let at = B3Digest.LENGTH; at < bytes.length; at += ENTRY_BYTES) {
    const size = view.getUint32(at, true);
    expectSize(size, index);
    if (index % STRIDE === 0) checkpoints.push(offset);
    offset += size;
    index += 1;
  }
  return offset;
}

function expectSize(size: number, index: number): void {
  if (Number.isInteger(size) && size > 0 && size <= MAX_CHUNK_BYTES) return;
  throw new CastoreError(
    "data_loss",
    `Cannot use a list of chunks: expected chunk ${index} to have 1 to ${MAX_CHUNK_BYTES} bytes, found ${size}`,
  );
}
