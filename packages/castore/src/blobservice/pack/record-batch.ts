import { isUncut } from "../../chunking/chunker.ts";
import { cutEnds } from "../../chunking/cut-ends.ts";
import { zstdCodec } from "../../compression/zstd-codec.ts";
import { openReader } from "../../disk/database.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { ChunkList } from "../chunk-list.ts";
import { listChunks } from "../cut-pieces.ts";
import { ChunkIndex, type ChunkState, indexPath } from "./chunk-index.ts";
import { encodeChunk } from "./codec.ts";
import {
  CODEC,
  HEADER_LENGTH,
  type RecordHeader,
  writeBlobHeader,
  writeChunkEntry,
  writeHeader,
} from "./format.ts";

/** A store, for a lane. */
export interface LaneStore {
  /** Number of the store among those that this process has opened. */
  readonly id: number;
  readonly folder: string;
  /** Compression level of zstd. */
  readonly level: number;
  /** Average length of chunks in bytes. */
  readonly averageChunkSize: number;
}

/** Contents to prepare, and where to. */
export interface PrepareTask {
  readonly store: LaneStore;
  /** Holds the contents from 0 on, and receives records. */
  readonly slab: SharedArrayBuffer;
  /** Where in the slab the records go. */
  readonly recordsAt: number;
}

/** Records in the slab: of chunks that are not stored, then of blobs but those that are such a chunk. Lengths in bytes. */
export interface PreparedRecords {
  readonly chunkBytes: number;
  readonly blobBytes: number;
  /** How many records of blobs there are. */
  readonly blobs: number;
  /** How many of these chunks there are, and the length of their contents. */
  readonly newChunks: number;
  readonly newBytes: number;
  /** The same of all chunks, stored or not. */
  readonly allChunks: number;
  readonly allBytes: number;
}

/** The indexes of stores that this thread has open, by number; `undefined` for one that it cannot open. */
const indexes = new Map<number, ChunkIndex | undefined>();

/** Has this thread use an index that it has open. */
export function useIndex({ id }: LaneStore, index: ChunkIndex): void {
  indexes.set(id, index);
}

/** Forgets the index of a store. */
export function leaveIndex({ id }: LaneStore): void {
  indexes.delete(id);
}

/** Closes the index that this thread has opened of a store. */
export function closeIndex({ id }: LaneStore): void {
  indexes.get(id)?.[Symbol.dispose]();
  indexes.delete(id);
}

/** Returns the index of a store; `undefined` where this thread cannot open it: everything then counts as absent. */
export function indexOf({ id, folder }: LaneStore): ChunkIndex | undefined {
  if (!indexes.has(id)) indexes.set(id, openIndex(folder));
  return indexes.get(id);
}

function openIndex(folder: string): ChunkIndex | undefined {
  try {
    return new ChunkIndex(openReader(indexPath(folder)));
  } catch (error) {
    if (error instanceof CastoreError) return undefined; // whoever commits the records tells
    throw error;
  }
}

/** Room for records of blobs at first, in bytes. */
const FIRST_BLOB_BYTES = 32 * 1024;

/** Makes records of contents in a slab. */
export class RecordBatch implements Disposable {
  readonly #store: LaneStore;
  /** Where chunks are looked up; `undefined` while nothing is stored. */
  readonly #index: ChunkIndex | undefined;
  readonly #snapshot: Disposable | undefined;
  readonly #slab: SharedArrayBuffer;
  readonly #records: Buffer;
  #recordsEnd = 0;
  #newChunks = 0;
  #newBytes = 0;
  #allChunks = 0;
  #allBytes = 0;
  /** Records of blobs. */
  #blobs = Buffer.alloc(0);
  #blobsEnd = 0;
  #blobCount = 0;
  /** The chunks that are among the records, by digest: whether each becomes a blob as well. */
  readonly #added = new Map<string, boolean>();

  constructor({ store, slab, recordsAt }: PrepareTask) {
    this.#store = store;
    const index = indexOf(store);
    if (index !== undefined && !index.isEmpty()) {
      this.#index = index;
      this.#snapshot = index.snapshot();
    }
    this.#slab = slab;
    this.#records = Buffer.from(slab, recordsAt);
  }

  [Symbol.dispose](): void {
    this.#snapshot?.[Symbol.dispose]();
  }

  contents(at: number, length: number): Uint8Array {
    return new Uint8Array(this.#slab, at, length);
  }

  /** Adds a blob that is in the slab, and cuts it where it is long. Returns its digest. */
  addWholeBlob(data: Uint8Array): B3Digest {
    const digest = blake3Digest(data);
    const { averageChunkSize } = this.#store;
    const ends = isUncut(data.length, averageChunkSize)
      ? [data.length]
      : cutEnds(data, true, averageChunkSize);
    if (ends.length === 1) {
      this.addChunk(digest, data, { isBlob: true });
    } else if (this.#index?.hasBlob(digest)) {
      this.#allChunks += ends.length;
      this.#allBytes += data.length;
    } else {
      this.addBlob(digest, this.#addChunksOf(data, ends));
    }
    return digest;
  }

  /** Adds the chunks at the beginning of the slab. Returns their packed list. */
  addChunks(ends: readonly number[]): Uint8Array {
    return this.#addChunksOf(this.contents(0, ends.at(-1) ?? 0), ends);
  }

  #addChunksOf(data: Uint8Array, ends: readonly number[]): Uint8Array {
    return listChunks(data, ends, (digest, chunk) => this.addChunk(digest, chunk)).bytes;
  }

  /**
   * Adds a chunk that is compressed already as a blob of its own, unless it is stored as one.
   *
   * @param frame in the slab, not before its place in the records
   */
  addFrame(digest: B3Digest, size: number, frame: Uint8Array): void {
    if (this.#begin(digest, size, true) !== undefined) return;
    const at = this.#recordsEnd + HEADER_LENGTH;
    const isInPlace = frame.byteOffset === this.#records.byteOffset + at;
    if (!isInPlace) this.#records.set(frame, at);
    this.#end({ digest, size, codec: CODEC.zstd, storedSize: frame.length, isBlob: true });
  }

  /**
   * Adds a chunk, unless it is stored. Returns whether it was.
   *
   * @param options.isBlob whether it becomes a blob of its own as well. Default: false
   */
  addChunk(
    digest: B3Digest,
    data: Uint8Array,
    { isBlob = false }: { isBlob?: boolean } = {},
  ): ChunkState {
    const state = this.#begin(digest, data.length, isBlob);
    if (state !== undefined) return state;
    const payload = this.#records.subarray(this.#recordsEnd + HEADER_LENGTH);
    const encoded = encodeChunk(data, payload, zstdCodec(this.#store.level));
    this.#end({ digest, size: data.length, ...encoded, isBlob });
    return "absent";
  }

  /** Notes that a chunk is to be added. Returns its state if no record of it is needed. */
  #begin(digest: B3Digest, size: number, isBlob: boolean): ChunkState | undefined {
    this.#allChunks += 1;
    this.#allBytes += size;
    const { key } = digest;
    const isBlobAlready = this.#added.get(key);
    const isAdded = isBlobAlready !== undefined;
    const state = isAdded ? "absent" : (this.#index?.stateOf(digest) ?? "absent");
    if (state === "absent" && !isAdded) {
      this.#added.set(key, isBlob);
      return undefined;
    }
    if (isBlob && state !== "live" && !isBlobAlready) this.#addUncutBlob(digest, size);
    return state;
  }

  /** Writes the header of a record whose payload is in place. */
  #end(header: Omit<RecordHeader, "kind">): void {
    writeHeader(this.#records, this.#recordsEnd, { kind: "chunk", ...header });
    this.#recordsEnd += HEADER_LENGTH + header.storedSize;
    this.#newChunks += 1;
    this.#newBytes += header.size;
  }

  /** Adds the record of a blob of a packed list. */
  addBlob(digest: B3Digest, list: Uint8Array): void {
    const at = this.#beginBlob(digest, list.length);
    this.#blobs.set(list, at);
  }

  /** Adds the record of a blob of one chunk, which has no record here, or one without the mark. */
  #addUncutBlob(digest: B3Digest, size: number): void {
    const at = this.#beginBlob(digest, ChunkList.ENTRY_BYTES);
    writeChunkEntry(this.#blobs, at, digest, size);
  }

  /** Writes the header of the record of a blob. Returns where its list goes, for which there is room. */
  #beginBlob(digest: B3Digest, listLength: number): number {
    const at = this.#blobsEnd;
    const end = at + HEADER_LENGTH + listLength;
    if (end > this.#blobs.length) {
      const larger = Buffer.allocUnsafe(Math.max(end, 2 * this.#blobs.length, FIRST_BLOB_BYTES));
      larger.set(this.#blobs.subarray(0, at));
      this.#blobs = larger;
    }
    writeBlobHeader(this.#blobs, at, digest, listLength);
    this.#blobsEnd = end;
    this.#blobCount += 1;
    return at + HEADER_LENGTH;
  }

  /** Appends the records of blobs to those of chunks. */
  finish(): PreparedRecords {
    const chunkBytes = this.#recordsEnd;
    this.#records.set(this.#blobs.subarray(0, this.#blobsEnd), chunkBytes);
    return {
      chunkBytes,
      blobBytes: this.#blobsEnd,
      blobs: this.#blobCount,
      newChunks: this.#newChunks,
      newBytes: this.#newBytes,
      allChunks: this.#allChunks,
      allBytes: this.#allBytes,
    };
  }
}
