import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";

/** Options of {@link DirectoryService.getRecursive}. */
export interface RecursiveOptions extends AbortOptions {
  /**
   * Tells of each of some directories below the root whether it is left out; each digest is asked for once. What is
   * below such a directory may be left out too, and need not be read. `hasMany` of the service that a tree is copied to
   * fits here. Default: nothing is left out.
   */
  skip?: (digests: readonly B3Digest[]) => Promise<readonly boolean[]>;
}

/**
 * Stores directories, named by the BLAKE3 digest of their canonical encoding.
 *
 * A directory that can be read is whole: everything below it can be read too. Concurrent writers of
 * the same directories all succeed. Whatever is read is verified.
 *
 * Every method rejects with `signal.reason` when cancelled, with CastoreError `unavailable` when a
 * backend cannot be reached, `resource_exhausted` when it is full.
 */
export interface DirectoryService extends AsyncDisposable {
  /**
   * One directory; `undefined` if there is none of that digest. One whose stored bytes do not match
   * counts as absent.
   */
  get(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined>;

  /**
   * Reads many directories, which costs less than one by one. The caller bounds how many, by the sizes that parents
   * state.
   *
   * @returns each in the order of the digests, as {@link get} gives it
   */
  getMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (Directory | undefined)[]>;

  /** Tells whether each of many directories can be read: an answer for each digest, in order. */
  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]>;

  /**
   * Reads a directory and everything below it: first itself, then each further one once, after one that
   * refers to it. Yields nothing if there is none of that digest. Holds nothing before it is iterated.
   *
   * Iterating throws CastoreError `data_loss` if a directory below is missing or damaged.
   */
  getRecursive(digest: B3Digest, options?: RecursiveOptions): AsyncIterable<Directory>;

  /** Starts to store a tree. */
  openPutter(options?: AbortOptions): DirectoryPutter;
}

/**
 * Takes the directories of one tree, from the leaves to the root. One call at a time. A putter that
 * is disposed before it was closed, cancelled or failed leaves nothing that can be read; where closing it
 * failed, whole trees below the root may stay, and be read by their own digests.
 */
export interface DirectoryPutter extends AsyncDisposable {
  /**
   * Adds a directory. It refers only to directories that were added before it; one that was added
   * already may be added again, to no effect.
   *
   * @throws CastoreError `invalid_argument` if it refers to one that was not added, or states another
   *   size than that one has; `resource_exhausted` if its encoding is longer than `MAX_MESSAGE_BYTES`
   */
  put(directory: Directory): Promise<void>;

  /**
   * Ends the tree. Resolves with the digest of the directory added last, the root, once all of them
   * are durable. Called again, gives the same digest. When it is cancelled meanwhile, the tree is
   * stored whole or not at all, and which of the two cannot be told.
   *
   * @throws CastoreError `invalid_argument` if none was added, or some cannot be reached from the root
   */
  close(): Promise<B3Digest>;
}
