import type { AbortOptions } from "../bytes/abort-options.ts";
import type { EntryState } from "../disk/entry-state.ts";
import type { SourceFile } from "../disk/source-file.ts";
import type { B3Digest } from "../model/digest.ts";
import type { CastoreError } from "../model/errors.ts";

/** Most files of a batch that is read in the calling thread: handing so few to a lane takes longer, and to start it much longer. */
export const FEW_FILES = 8;

/**
 * Stores files of the local file system as blobs. Reading, hashing and whatever else takes processor time is done in lanes,
 * several at a time; digests are known before the blobs are durable.
 */
export interface FileStore {
  /** How many batches of small files may be under way at the same time. */
  readonly parallelism: number;
  /** Length of a batch of small files, in bytes. */
  readonly batchBytes: number;

  /**
   * Reads small files whole, as many as fit into a batch, and begins to store them. Batches wait for those before them to
   * be disposed of.
   *
   * @param paths paths in the file system, one character a byte
   * @param options.isNext none of the other batches is disposed of before this one: it does not wait. Default: false
   * @returns the files, once they were read and hashed
   */
  putSmall(
    paths: readonly string[],
    options?: PutFileOptions & { isNext?: boolean },
  ): Promise<FileBatch>;

  /**
   * Begins to store a file of any size, as its pieces are asked for. Disposes of the file after the last piece, or when it
   * rejects.
   */
  putLarge(file: SourceFile, options?: PutFileOptions): Promise<LargeFile>;
}

/** Options of storing files. */
export interface PutFileOptions extends AbortOptions {
  /**
   * Receives how many bytes of contents the store lacked, for each batch or piece, before it is durable. A store that
   * cannot tell does not call it. Default: nobody.
   */
  onNewBytes?: (bytes: number) => void;
  /** Level of zstd for chunks that are compressed to be sent, 1 to 22. Default: 1. */
  zstdLevel?: number | undefined;
}

/** Files that were read together, by their positions. Disposing of it gives up the contents. */
export interface FileBatch extends Disposable {
  /**
   * Whether a file was read. `"large"` means that it is too large for any batch, `"left"` that it did not fit into this one,
   * nor did those that follow. The error of a file that cannot be read.
   */
  outcome(i: number): "read" | "large" | "left" | CastoreError;
  size(i: number): number;
  isExecutable(i: number): boolean;
  /** The digest, 32 bytes, which are the caller's to keep. */
  digest(i: number): Uint8Array;
  /** What the file system said of a file that was read, when it was opened. */
  state(i: number): EntryState;
  /** The contents, which are lent until the batch is disposed of. */
  contents(i: number): Uint8Array;
  /** Resolves when all that were read are durable; rejects, handled, when they are not. */
  readonly stored: Promise<void>;
}

/** A file that is being stored. */
export interface LargeFile {
  /**
   * Reads the contents, in order, each piece lent until the next is asked for. Iterated once, to its end.
   *
   * @throws CastoreError `aborted` if the file changes meanwhile; whatever the store throws
   */
  pieces(): AsyncIterable<Uint8Array>;
  /** Returns the digest, and what resolves when the blob is durable. Called once, after the last piece. */
  finish(): { readonly digest: B3Digest; readonly stored: Promise<void> };
}
