import type { AbortOptions } from "../bytes/abort-options.ts";
import { SingleFlight } from "../bytes/single-flight.ts";
import { CastoreError, type ErrorCode } from "../model/errors.ts";
import type { ObjectStore } from "./object-store.ts";

/** What the keys of marks begin with. */
const FOLDER = "damaged/";

const NOTHING = new Uint8Array(0);

/** How long it is believed which objects others have marked, in milliseconds. */
const FRESH_MS = 30_000;

/** Of how many marks of others it is known: some ten megabytes. Objects behind them are damaged when they are read. */
const MAX_LISTED = 65_536;

/** How a store answers that gives no list. */
const UNLISTED: ReadonlySet<ErrorCode> = new Set(["unimplemented", "permission_denied"]);

/**
 * Which objects of a store were found damaged, or missing, and are to be put again: by whatever process, as each
 * has an empty object `damaged/<key>`. Nothing is deleted: somebody else may have put it again just now, and was told
 * that it is stored. A mark on an object that is whole costs no more than that it is read, or put, once again.
 *
 * What others marked is listed when it is first asked for, and again when what is known is half a minute old. Marks
 * that a store refuses, since it can only be read, are kept in memory.
 */
export class DamageMarks {
  readonly #store: ObjectStore;
  /** Keys of marked objects, and when their marks were seen in the store. */
  readonly #stored = new Map<string, number>();
  /** Keys of objects whose marks could not be stored. */
  readonly #unstored = new Set<string>();
  readonly #listings = new SingleFlight<void>();
  #listedAt = Number.NEGATIVE_INFINITY;

  constructor(store: ObjectStore) {
    this.#store = store;
  }

  /** Whether an object is marked. That it is not may have been so half a minute ago. */
  async has(key: string, options?: AbortOptions): Promise<boolean> {
    await this.#refresh(options);
    if (this.#unstored.has(key)) return true;
    if (!this.#stored.has(key)) return false;
    if ((await this.#store.head(FOLDER + key, options)) !== undefined) return true;
    this.#stored.delete(key); // somebody else has put the object again
    return false;
  }

  /** Whether an object is known to be marked, without asking the store. */
  isKnown(key: string): boolean {
    return this.#stored.has(key) || this.#unstored.has(key);
  }

  /** The keys of all objects that are marked. */
  async keys(options?: AbortOptions): Promise<readonly string[]> {
    await this.#refresh(options);
    return [...this.#stored.keys(), ...this.#unstored];
  }

  /** Marks an object that cannot be read. Fails for nothing: what the store refuses is kept in mind. */
  async mark(key: string, options?: AbortOptions): Promise<void> {
    this.#unstored.add(key);
    try {
      await this.#store.put(FOLDER + key, NOTHING, options);
      this.#stored.set(key, performance.now());
      this.#unstored.delete(key);
    } catch {
      // Whoever meets the damage next tries again.
    }
  }

  /**
   * Removes the mark of an object that has been put again, or was read whole. Fails for nothing: a mark that stays is
   * harmless.
   */
  async clear(key: string, options?: AbortOptions): Promise<void> {
    if (!this.isKnown(key)) return;
    this.#stored.delete(key);
    this.#unstored.delete(key);
    try {
      await this.#store.delete(FOLDER + key, options);
    } catch {
      // It is found with the next list.
    }
  }

  /** @throws CastoreError what listing throws, unless the store gives no list */
  async #refresh(options?: AbortOptions): Promise<void> {
    options?.signal?.throwIfAborted();
    if (performance.now() - this.#listedAt < FRESH_MS) return;
    await this.#listings.run(FOLDER, (signal) => this.#list(signal), options);
  }

  async #list(signal: AbortSignal): Promise<void> {
    const begun = performance.now();
    let count = 0;
    try {
      for await (const { key } of this.#store.list(FOLDER, { signal })) {
        this.#stored.set(key.slice(FOLDER.length), begun);
        count += 1;
        if (count === MAX_LISTED) break;
      }
      // What was marked meanwhile may not be in the list.
      for (const [key, seenAt] of this.#stored) {
        if (seenAt < begun) this.#stored.delete(key);
      }
    } catch (error) {
      if (!(error instanceof CastoreError && UNLISTED.has(error.code))) throw error;
    }
    this.#listedAt = begun;
  }
}
