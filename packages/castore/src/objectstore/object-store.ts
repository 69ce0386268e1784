import type { AbortOptions } from "../bytes/abort-options.ts";
import type { RangeOptions } from "../model/range.ts";

/** Options of {@link ObjectStore.get}: which part of the object is read. Default: all of it. */
export interface GetObjectOptions extends AbortOptions, RangeOptions {}

/** Options of {@link ObjectStore.list}. */
export interface ListObjectsOptions extends AbortOptions {
  /** Lists only keys that sort after this one. Default: from the first on. */
  after?: string;
}

/** Options of {@link ObjectStore.put}. */
export interface PutObjectOptions extends AbortOptions {
  /**
   * Whether the change outlives a power failure. One that does not outlives the end of this process all the same, and costs
   * less where the store waits for a disk. Default: true.
   */
  isDurable?: boolean;
}

/** Options of {@link ObjectStore.delete}. */
export interface DeleteObjectOptions extends PutObjectOptions {
  /** Deletes the object only while it is of this version. Default: whatever has the key is deleted. */
  version?: string;
}

/** What a listing tells about an object. */
export interface ObjectMeta {
  readonly key: string;
  /** Length in bytes. */
  readonly size: number;
}

/** What is known about an object. */
export interface ObjectHead extends ObjectMeta {
  /**
   * Tells the objects apart that have the same key one after the other. Storing the same contents again may keep it.
   * `undefined` where the store tells no versions.
   */
  readonly version: string | undefined;
}

/** The contents of an object, in pieces of any size, which belong to the reader. Iterated at most once. */
export interface ObjectContents extends AsyncIterable<Uint8Array> {
  /** As in {@link ObjectHead}: the version that is read, or an earlier one that was replaced just now. */
  readonly version: string | undefined;
}

/**
 * Keeps objects, byte strings with a key, as the object stores of the clouds do. Keys are ASCII
 * letters, digits and `-_./`, relative to the prefix at which the store was opened; `/` separates
 * folders, no part is empty, `.` or `..`, and no object has the key of a folder.
 *
 * An object is seen whole or not at all. Once a call that stored it has resolved, every later call sees it, and it is
 * durable unless the caller does without that. Implementations repeat what may succeed then, with growing, random pauses
 * and a bound. They verify nothing about contents.
 *
 * Every method rejects with `signal.reason` when cancelled, with CastoreError `invalid_argument` for a
 * key that is not valid, or a bucket that does not exist, `unavailable` when the store cannot be reached or is busy,
 * `permission_denied` when it refuses access, `resource_exhausted` when it is full, `unimplemented`
 * for a method that changes something where the store can only be read.
 */
export interface ObjectStore extends AsyncDisposable {
  /** Where it is, for messages: an address without credentials or options. */
  readonly name: string;

  /**
   * Reads an object; `undefined` if there is none. Contents that are not iterated hold nothing but memory; ending
   * early releases what iterating holds. Iterating throws CastoreError `aborted` where the object was replaced or deleted
   * meanwhile, and the rest of it is gone.
   */
  get(key: string, options?: GetObjectOptions): Promise<ObjectContents | undefined>;

  /** Looks an object up; `undefined` if there is none. */
  head(key: string, options?: AbortOptions): Promise<ObjectHead | undefined>;

  /** Stores an object that is in memory, whatever had its key before. The caller leaves the bytes alone until it settles. */
  put(key: string, data: Uint8Array, options?: PutObjectOptions): Promise<void>;

  /** Starts to store an object of any length. Nothing is sent before something is written, or it is closed. */
  openUpload(key: string, options?: PutObjectOptions): ObjectUpload;

  /**
   * Lists the objects whose keys start with a prefix, sorted bytewise by key. Pages are fetched as they are
   * needed. Objects that are stored or deleted meanwhile may be among them or not.
   *
   * @param prefix any start of a key, which may end within a name; empty for all objects
   */
  list(prefix: string, options?: ListObjectsOptions): AsyncIterable<ObjectMeta>;

  /**
   * Deletes an object. One that is absent, or of another version than the one that is to be deleted, is no error.
   *
   * @throws CastoreError `unimplemented` for a version where the store deletes without conditions only
   */
  delete(key: string, options?: DeleteObjectOptions): Promise<void>;
}

/**
 * Takes the bytes of one object. One call at a time. An upload that is disposed before it was closed,
 * cancelled or failed leaves nothing: no object, and no parts in the store.
 */
export interface ObjectUpload extends AsyncDisposable {
  /** Adds bytes, which the caller leaves alone until it settles. Resolves when there is room for more. */
  write(data: Uint8Array): Promise<void>;

  /** Ends the object. Resolves once it is stored; called again, with the same outcome. */
  close(): Promise<void>;
}
