import type { AbortOptions } from "../bytes/abort-options.ts";
import { lruCache } from "../bytes/lru-cache.ts";
import { blake3 } from "../hash/blake3.ts";
import { B3Digest } from "../model/digest.ts";
import { CastoreError, hasCode } from "../model/errors.ts";
import type { ObjectContents, ObjectHead, ObjectStore } from "./object-store.ts";

/** How many damaged objects are remembered that could not be deleted: some ten megabytes. */
const MAX_KEPT = 65_536;

/**
 * Takes damaged objects out of a store, so that they are absent for everybody and storing them again heals. An object
 * is deleted on the condition that it is still the one that was read: never one that somebody stored meanwhile. One that
 * cannot be deleted, since the store is only read, or deletes without conditions, is remembered by this process alone,
 * and counts as absent here.
 */
export class DamagedObjects {
  readonly #store: ObjectStore;
  readonly #onCorrupt: (message: string) => void;
  /** Versions of objects that could not be deleted, by key. */
  readonly #kept = lruCache<string, string>(MAX_KEPT);

  /** @param onCorrupt is told of each damaged object */
  constructor(store: ObjectStore, onCorrupt: (message: string) => void) {
    this.#store = store;
    this.#onCorrupt = onCorrupt;
  }

  /** Looks an object up, unless it is known to be damaged. */
  async head(key: string, options?: AbortOptions): Promise<ObjectHead | undefined> {
    const found = await this.#store.head(key, options);
    return found !== undefined && this.#isKept(key, found.version) ? undefined : found;
  }

  /** Tells whether there is an object that is not known to be damaged. */
  async has(key: string, options?: AbortOptions): Promise<boolean> {
    return (await this.head(key, options)) !== undefined;
  }

  /**
   * Reads an object. Where it is damaged it is read once more, for the bytes may have changed on their way, and deleted
   * if both readings gave the same bytes.
   *
   * @param parse turns the contents into what is wanted; throws CastoreError `data_loss` for contents that are damaged
   * @throws CastoreError `data_loss` where two readings are damaged in different ways: nothing is deleted then
   */
  async read<T>(
    key: string,
    parse: (contents: ObjectContents) => Promise<T>,
    options?: AbortOptions,
  ): Promise<T | "missing" | "damaged"> {
    for (let first: B3Digest | undefined; ; ) {
      const object = await this.#store.get(key, { signal: options?.signal });
      if (object === undefined) return "missing";
      const contents = new HashedContents(object);
      try {
        const found = await parse(contents);
        this.#kept.delete(key);
        return found;
      } catch (error) {
        if (!hasCode(error, "data_loss")) throw error;
        const digest = contents.digest();
        if (first === undefined) {
          first = digest;
          continue;
        }
        const message = `Cannot use object "${key}" in ${this.#store.name}: ${error.message}`;
        if (!digest.equals(first)) {
          const reason = "two readings gave different bytes: check the connection and this machine";
          throw new CastoreError("data_loss", `${message}; ${reason}`, { cause: error });
        }
        if (!(await this.remove(key, object.version, message, options))) {
          this.#kept.set(key, object.version ?? "");
        }
        return "damaged";
      }
    }
  }

  /**
   * Deletes an object that is of no use, while it is of a version.
   *
   * @param message what is wrong, for whoever is told of damage
   * @returns whether it is gone, or another one is in its place; `false` where the store refuses
   */
  async remove(
    key: string,
    version: string | undefined,
    message: string,
    options?: AbortOptions,
  ): Promise<boolean> {
    if (this.#isKept(key, version)) return false; // refused before
    this.#onCorrupt(message);
    if (version === undefined) return false;
    try {
      await this.#store.delete(key, { version, signal: options?.signal });
      return true;
    } catch {
      options?.signal?.throwIfAborted();
      return false;
    }
  }

  #isKept(key: string, version: string | undefined): boolean {
    return this.#kept.get(key) === (version ?? "");
  }
}

/** The contents of an object, hashed as far as they are read. */
class HashedContents implements ObjectContents {
  readonly version: string | undefined;
  readonly #contents: ObjectContents;
  readonly #hasher = blake3.createHasher();

  constructor(contents: ObjectContents) {
    this.version = contents.version;
    this.#contents = contents;
  }

  /** Returns the digest of what was read. To be called once, last. */
  digest(): B3Digest {
    return B3Digest.fromBytes(this.#hasher.digest());
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for await (const data of this.#contents) {
      this.#hasher.update(data);
      yield data;
    }
  }
}
