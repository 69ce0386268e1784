import type { AbortOptions } from "../bytes/abort-options.ts";

/** Which part of an object to get. */
export interface GetObjectOptions extends AbortOptions {
  /** First byte to get. Default: 0. At or past the end, nothing is got. */
  offset?: number;
  /** How many bytes to get at most. Default: to the end. */
  length?: number;
}

/** Options of {@link ObjectStore.put} and {@link ObjectStore.openUpload}. */
export interface PutObjectOptions extends AbortOptions {
  /** Leaves an object that is already there alone. Default: it is replaced. */
  ifAbsent?: boolean;
}

/** Options of {@link ObjectStore.list}. */
export interface ListObjectsOptions extends AbortOptions {
  /** Only keys that sort after this one. Default: from the first on. */
  after?: string;
}

/** What a listing says about an object. */
export interface ObjectMeta {
  readonly key: string;
  /** Length in bytes. */
  readonly size: number;
}

/**
 * Keeps objects, byte strings with a key, as the object stores of the clouds do. Keys are ASCII
 * letters, digits and `-_./`, relative to the prefix at which the store was opened; `/` separates
 * folders, no part is empty, `.` or `..`, and no object has the key of a folder.
 *
 * An object is seen whole or not at all, and once a call that stored it has resolved, it is durable
 * and every later call sees it. Implementations try again, with growing and random pauses and a bound,
 * what may succeed then. They verify nothing about contents.
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
   * The contents of an object, in pieces of any size, which belong to whoever iterates. `undefined` if
   * there is none. The result is iterated once at most; ending early releases what it holds.
   */
  get(key: string, options?: GetObjectOptions): Promise<AsyncIterable<Uint8Array> | undefined>;

  /** What is known about an object; `undefined` if there is none. */
  head(key: string, options?: AbortOptions): Promise<ObjectMeta | undefined>;

  /**
   * Stores an object that is in memory. The caller leaves the bytes alone until it resolves.
   *
   * @returns whether it was stored: `false` if there was one and `ifAbsent` is set. Of several that
   *   store the same key at the same time with `ifAbsent`, one gets `true`
   */
  put(key: string, data: Uint8Array, options?: PutObjectOptions): Promise<boolean>;

  /** Starts to store an object of any length. */
  openUpload(key: string, options?: PutObjectOptions): ObjectUpload;

  /**
   * Every object whose key starts with a prefix, sorted bytewise by key. Pages are fetched as they are
   * needed. Objects that are stored or deleted meanwhile may be among them or not.
   *
   * @param prefix any start of a key, which may end within a name; empty for all objects
   */
  list(prefix: string, options?: ListObjectsOptions): AsyncIterable<ObjectMeta>;

  /** Deletes an object. One that is not there is no error. */
  delete(key: string, options?: AbortOptions): Promise<void>;
}

/**
 * Takes the bytes of one object. One call at a time. An upload that is disposed before it was closed,
 * cancelled or failed leaves nothing: no object, and no parts in the store.
 */
export interface ObjectUpload extends AsyncDisposable {
  /** Adds bytes, which the caller leaves alone until it resolves. That is when there is room for more. */
  write(data: Uint8Array): Promise<void>;

  /** Ends the object. Resolves with what {@link ObjectStore.put} resolves with; called again, with the same. */
  close(): Promise<boolean>;
}
