import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import type { BlobPlaces } from "./blob-places.ts";
import type { ChunkList, ChunkMeta } from "./chunk-list.ts";
import type { FileStore } from "./file-store.ts";

/** Which part of a blob to read. */
export interface ReadOptions extends AbortOptions {
  /** First byte to read. Default: 0. At or past the end, nothing is read. */
  offset?: number;
  /** How many bytes to read at most. Default: to the end. */
  length?: number;
  /** About how many bytes may be held, read ahead of who iterates. Services may hold less. Default: 4 MiB. */
  readAhead?: number;
}

/** Length and number of chunks of a blob. */
export interface BlobStat {
  /** Length in bytes. */
  readonly size: number;
  /** How many chunks it is cut into: 1 where it is not cut, 0 for the empty blob. */
  readonly chunks: number;
}

/** Options of {@link BlobService.putList}. */
export interface PutListOptions extends AbortOptions {
  /**
   * The caller has hashed these very chunks as the contents of the blob: they are not read again. Never to be set on
   * the word of another process. Default: false.
   */
  proven?: boolean;
  /** The upload whose parts were all of the chunks, see {@link FrameBatch.part}. Default: none. */
  upload?: Uint8Array | undefined;
}

/** A part of a long blob that comes in several batches of frames. */
export interface UploadPart {
  /** Name of the upload, 16 bytes that nobody else uses. */
  readonly upload: Uint8Array;
  /** How many bytes of the blob are before it. */
  readonly offset: number;
}

/** Chunks that are compressed, and blobs of them. */
export interface FrameBatch {
  readonly chunks: ChunkList;
  /** One zstd frame for each of the chunks, in order. */
  readonly frames: readonly Uint8Array[];
  /** Blobs of several chunks, which are among these, or stored before. */
  readonly blobs: readonly { readonly digest: B3Digest; readonly chunks: ChunkList }[];
  /**
   * Says that the chunks, in order, are a part of a long blob. A service may hash that while its parts come, so that
   * {@link BlobService.putList} need not read the chunks. Default: they are not.
   */
  readonly part?: UploadPart | undefined;
}

/** A small blob: its contents, or one zstd frame of them that states their length. */
export type StoredBlob = ({ readonly contents: Uint8Array } | { readonly frame: Uint8Array }) & {
  /** The memory that blobs of the same call are in, for `freeMemory` once all of them are used. Default: the blob itself. */
  readonly memory?: Uint8Array;
};

/** A buffer that the contents of blobs were read into. */
export interface FilledBuffer {
  /** The buffer, as long as it was. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /**
   * Positions of blobs that could not be read, among all: what is in their places means nothing. Reading one by
   * {@link BlobService.read} tells why.
   */
  readonly unread: readonly number[];
}

/**
 * Stores blobs: byte strings of any length, named by the BLAKE3 digest of their bytes.
 *
 * What was put once reads back the same for ever; concurrent writers of the same blob, in one
 * process or several, all succeed. Whatever is read is verified: bytes that do not match their
 * digest are never handed out. Bytes that are handed out belong to the caller.
 *
 * Every method rejects with `signal.reason` when cancelled, with CastoreError `unavailable` when a
 * backend cannot be reached, `resource_exhausted` when it is full.
 */
export interface BlobService extends AsyncDisposable {
  /** Tells whether the blob, or a chunk of a blob, of that digest can be read. */
  has(digest: B3Digest, options?: AbortOptions): Promise<boolean>;

  /** Tells whether each of many blobs, or chunks of blobs, can be read, in order. */
  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]>;

  /**
   * Returns length and number of chunks of each of many blobs, or chunks of blobs, in order; `undefined` for one that
   * is absent. A chunk is a blob that is not cut.
   */
  statMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (BlobStat | undefined)[]>;

  /**
   * Opens a blob, or a chunk of a blob, for random access; `undefined` if there is none. A list of chunks that turns
   * out to be damaged is told as {@link BlobService.read} tells it, here or when the reader comes to it.
   */
  open(digest: B3Digest, options?: AbortOptions): Promise<BlobReader | undefined>;

  /**
   * Reads a blob, or a chunk of a blob, from `offset` on, in pieces of any size. `undefined` if there is no such blob.
   * The result is iterated once at most, and holds nothing before that; ending early releases what it holds.
   *
   * Iterating, or reading itself, rejects with CastoreError `data_loss` where stored bytes do not match
   * their digest: from then on the blob counts as absent, and putting it again heals it.
   */
  read(digest: B3Digest, options?: ReadOptions): Promise<AsyncIterable<Uint8Array> | undefined>;

  /**
   * Reads many small blobs, or chunks of blobs, whole, which costs much less than one by one. The caller
   * bounds how much that is by the sizes that it asks for.
   *
   * @param blobs digest of each, and what length in bytes it should have
   * @returns the contents of each in order; `undefined` for one that is absent, damaged or of another length
   */
  readMany(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (Uint8Array | undefined)[]>;

  /**
   * Reads the same blobs as {@link readMany}, in their stored form. The bytes need not match the digests: the caller compares
   * them, and reads those that differ by {@link readMany}, which reports why. Absent where blobs are not stored as frames.
   *
   * @returns each in order; `undefined` for one that is absent or of another length
   */
  readManyStored?(
    blobs: readonly ChunkMeta[],
    options?: AbortOptions,
  ): Promise<readonly (StoredBlob | undefined)[]>;

  /**
   * Reads the same blobs as {@link readMany} to places in a buffer, which saves a copy. Absent where it saves none: then
   * `readManyInto` of this package does it by {@link readMany}.
   *
   * @param target a whole buffer, which the service may move to another thread: the caller uses that of the result
   */
  readManyInto?(
    target: Uint8Array<ArrayBuffer>,
    blobs: BlobPlaces,
    options?: AbortOptions,
  ): Promise<FilledBuffer>;

  /**
   * Stores many blobs that are in memory, which costs much less than one by one. The caller bounds how
   * much that is, and leaves the bytes alone until it resolves.
   *
   * @returns the digest of each in order, once all of them are durable and can be read. When it
   *   rejects, some may have been stored
   */
  putMany(blobs: readonly Uint8Array[], options?: AbortOptions): Promise<readonly B3Digest[]>;

  /**
   * Stores a blob whose chunks are there, each a blob or a chunk of one. Resolves once it is durable and can be read.
   * The chunks are read and hashed first, unless they are `proven`, or were hashed as parts of an `upload`. A list of one
   * chunk is that chunk, which becomes a blob of its own; one of none is the empty blob.
   *
   * @throws CastoreError `data_loss` if the chunks do not make up the digest, or have other lengths than listed;
   *   `not_found`, which names the first chunk that is absent. Nothing is stored then
   */
  putList(digest: B3Digest, chunks: ChunkList, options?: PutListOptions): Promise<void>;

  /**
   * Whether {@link putFrames} keeps frames as they are. Where it does not, contents are stored with less work. Default:
   * false.
   */
  readonly keepsFrames?: boolean;

  /**
   * Stores chunks that are compressed already, each of which can be read by its own digest from then on, and blobs of such
   * chunks. Frames are decompressed and hashed first. The caller bounds how much that is, and leaves the bytes alone
   * until it resolves, which it does once everything is durable.
   *
   * @throws CastoreError `invalid_argument` for a frame that is not of its chunk, or that cannot be served to others: each
   *   is one zstd frame that states its content size, without a dictionary; as {@link putList} for a blob. When it
   *   rejects, some may have been stored
   */
  putFrames(batch: FrameBatch, options?: AbortOptions): Promise<void>;

  /**
   * Streams chunks as they are stored, in order: one zstd frame for each, which states its content size; an
   * incompressible one as a frame of raw blocks. They are not checked against their digests: whoever decompresses
   * them does that. The result is iterated once at most, and holds nothing before that.
   *
   * @throws CastoreError `data_loss`, from iterating, for a chunk that is absent or has another length than listed
   */
  frames(chunks: ChunkList, options?: AbortOptions): AsyncIterable<Uint8Array>;

  /**
   * Returns the length in bytes of the frame of each chunk, in order, as {@link verifiedFrames} streams it. Reads no frame.
   * Both methods are absent where frames are not stored, or cannot be measured without reading them.
   *
   * @throws CastoreError `unimplemented` from a client whose server stores no frames, `data_loss` for a chunk that is absent or
   *   has another length than listed
   */
  frameSizes?(chunks: ChunkList, options?: AbortOptions): Promise<Uint32Array>;

  /**
   * Streams what {@link frames} does, in batches, and verifies each frame: by its contents, or by a checksum that was taken when
   * they were verified. Reads one batch ahead. A batch is lent until the next one is asked for.
   *
   * @throws CastoreError `data_loss`, from iterating, for a chunk that is absent, damaged, or has another length than
   *   listed
   */
  verifiedFrames?(chunks: ChunkList, options?: AbortOptions): AsyncIterable<readonly Uint8Array[]>;

  /**
   * Returns how many bytes each chunk takes where it is stored, in order; `undefined` for one that has no record of its own.
   * Reads no contents, but may take a request for each chunk. Absent where {@link frameSizes} tells the same, or where the
   * store cannot tell.
   */
  storedSizes?(chunks: ChunkList, options?: AbortOptions): Promise<readonly (number | undefined)[]>;

  /** Folder of a pack store that has every chunk of this one, for other threads (`PackView`); absent where there is none. */
  readonly packFolder?: string;

  /** Stores files of the local file system faster than by their contents; `undefined` where there is no such way. */
  readonly files?: FileStore | undefined;

  /** Starts a new blob. */
  openWriter(options?: AbortOptions): BlobWriter;
}

/** A blob that is open for random access. Cheap to hold: no more than its list of chunks is in memory. */
export interface BlobReader extends AsyncDisposable {
  readonly digest: B3Digest;
  /** Length of the blob in bytes. */
  readonly size: number;
  /** How the blob is cut. One entry, the blob itself, where it is not cut; none for the empty blob. */
  readonly chunks: ChunkList;

  /**
   * Reads up to `length` bytes from `offset` on: fewer only at the end of the blob, none at or past it. They are
   * verified by the digests of the chunks that they are in. Several calls may be under way at the same time.
   *
   * @throws CastoreError `invalid_argument` for an offset or length that is no natural number, and once the reader is
   *   disposed of; `data_loss` as {@link BlobService.read}
   */
  read(offset: number, length: number, options?: AbortOptions): Promise<Uint8Array>;
}

/**
 * Takes the bytes of one blob. One call at a time. A writer that is disposed before it was closed,
 * cancelled or failed leaves nothing of the blob that can be read; whole chunks of it may stay, and be read by
 * their own digests.
 */
export interface BlobWriter extends AsyncDisposable {
  /**
   * Adds bytes, which the caller leaves alone until it resolves: the writer keeps nothing of them after that. It
   * resolves when there is room for more.
   */
  write(data: Uint8Array): Promise<void>;

  /**
   * Ends the blob. Resolves with the digest once the blob is durable and can be read. Called again,
   * gives the same digest. When it is cancelled meanwhile, the blob is stored whole or not at all, and
   * which of the two cannot be told.
   */
  close(): Promise<B3Digest>;
}
