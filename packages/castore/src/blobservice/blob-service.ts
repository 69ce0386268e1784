import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";

/** One of the pieces that a blob is cut into, in order. */
export interface ChunkMeta {
  /** BLAKE3 digest of the piece. */
  readonly digest: B3Digest;
  /** Length of the piece in bytes. */
  readonly size: number;
}

/** Contents of blobs, lent until this is disposed of. If it never is, they are garbage some day. */
export interface LentBlobs extends Disposable {
  /**
   * The contents of each blob in the order in which they were asked for; `undefined` for one that is
   * absent, damaged or of another length.
   */
  readonly contents: readonly (Uint8Array | undefined)[];
}

/** Which part of a blob to read. */
export interface ReadOptions extends AbortOptions {
  /** First byte to read. Default: 0. At or past the end, nothing is read. */
  offset?: number;
  /** How many bytes to read at most. Default: to the end. */
  length?: number;
}

/**
 * Stores blobs: byte strings of any length, named by the BLAKE3 digest of their bytes.
 *
 * What was put once reads back the same for ever; concurrent writers of the same blob, in one
 * process or several, all succeed. Whatever is read is verified: bytes that do not match their
 * digest are never handed out.
 *
 * Every method rejects with `signal.reason` when cancelled, with CastoreError `unavailable` when a
 * backend cannot be reached, `resource_exhausted` when it is full.
 */
export interface BlobService extends AsyncDisposable {
  /** Whether the blob, or a chunk of a blob, of that digest can be read. */
  has(digest: B3Digest, options?: AbortOptions): Promise<boolean>;

  /**
   * How a blob is cut: its chunks in order. Empty if it is not cut any further, in which case it is
   * read by its own digest. `undefined` if there is no such blob. A list that turns out to be damaged is
   * told as {@link BlobService.read} tells it.
   */
  chunks(digest: B3Digest, options?: AbortOptions): Promise<readonly ChunkMeta[] | undefined>;

  /**
   * Reads a blob, or a chunk of a blob, from `offset` on, in pieces of any size, each of which is only
   * lent until the next one is asked for. `undefined` if there is no such blob. The result is iterated
   * once at most; ending early releases what it holds.
   *
   * Iterating, or reading itself, rejects with CastoreError `data_loss` where stored bytes do not match
   * their digest: from then on the blob counts as absent, and putting it again heals it.
   */
  read(digest: B3Digest, options?: ReadOptions): Promise<AsyncIterable<Uint8Array> | undefined>;

  /** Whether each of many blobs, or chunks of blobs, can be read: an answer for each, in order. */
  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]>;

  /**
   * Reads many small blobs, or chunks of blobs, whole, which costs much less than one by one. The caller
   * bounds how much that is by the sizes that it asks for.
   *
   * @param blobs digest of each, and what length in bytes it should have
   * @returns their contents, which {@link BlobService.read} says more about where they are not there
   */
  readMany(blobs: readonly ChunkMeta[], options?: AbortOptions): Promise<LentBlobs>;

  /**
   * Stores many blobs that are in memory, which costs much less than one by one. The caller bounds how
   * much that is, and leaves the bytes alone until it resolves.
   *
   * @returns the digest of each in order, once all of them are durable and can be read. When it
   *   rejects, some may have been stored
   */
  putMany(blobs: readonly Uint8Array[], options?: AbortOptions): Promise<readonly B3Digest[]>;

  /** Starts a new blob. */
  openWriter(options?: AbortOptions): BlobWriter;
}

/**
 * Takes the bytes of one blob. One call at a time. A writer that is disposed before it was closed,
 * cancelled or failed leaves nothing of the blob that can be read; whole chunks of it may stay, and be read by
 * their own digests.
 */
export interface BlobWriter extends AsyncDisposable {
  /**
   * Adds bytes, which the caller leaves alone until it resolves. That is when there is room for more.
   */
  write(data: Uint8Array): Promise<void>;

  /**
   * Ends the blob. Resolves with the digest once the blob is durable and can be read. Called again,
   * gives the same digest. When it is cancelled meanwhile, the blob is stored whole or not at all, and
   * which of the two cannot be told.
   */
  close(): Promise<B3Digest>;
}
