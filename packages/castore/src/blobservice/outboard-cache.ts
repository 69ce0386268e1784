import { LRUCache } from "lru-cache";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { SingleFlight } from "../bytes/single-flight.ts";
import type { Outboard } from "../hash/outboard.ts";
import type { B3Digest } from "../model/digest.ts";

/** Memory overhead of a cached outboard in bytes: that of a small blob has only 8 bytes itself. */
const OUTBOARD_BYTES = 512;

/** LRU cache of the outboards of blobs, with single flight for concurrent lookups. */
export class OutboardCache {
  readonly #find: (digest: B3Digest, options: AbortOptions) => Promise<Outboard | undefined>;
  readonly #known: LRUCache<string, Outboard>;
  readonly #running = new SingleFlight<Outboard | undefined>();

  /**
   * @param find looks up or computes an outboard; `undefined` if there is none
   * @param maxBytes capacity of the cache in bytes
   */
  constructor(
    find: (digest: B3Digest, options: AbortOptions) => Promise<Outboard | undefined>,
    maxBytes: number,
  ) {
    this.#find = find;
    this.#known = new LRUCache({
      maxSize: maxBytes,
      sizeCalculation: ({ bytes }) => bytes.length + OUTBOARD_BYTES,
    });
  }

  /** @throws the errors of `find` */
  async get(digest: B3Digest, options?: AbortOptions): Promise<Outboard | undefined> {
    options?.signal?.throwIfAborted();
    const find = async (signal: AbortSignal) => {
      const outboard = await this.#find(digest, { signal });
      if (outboard !== undefined) this.#known.set(digest.key, outboard);
      return outboard;
    };
    return this.#known.get(digest.key) ?? (await this.#running.run(digest.key, find, options));
  }
}
