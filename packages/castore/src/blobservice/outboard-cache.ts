import { LRUCache } from "lru-cache";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { SingleFlight } from "../bytes/single-flight.ts";
import type { Outboard } from "../hash/outboard.ts";
import type { B3Digest } from "../model/digest.ts";

/** What an outboard takes beyond its bytes: those of small blobs have only 8. */
const OUTBOARD_BYTES = 512;

/** Gets the outboards of blobs, each once for all who ask for it, and remembers the last ones. */
export class OutboardCache {
  readonly #find: (digest: B3Digest, options: AbortOptions) => Promise<Outboard | undefined>;
  readonly #known: LRUCache<string, Outboard>;
  readonly #running = new SingleFlight<Outboard | undefined>();

  /**
   * @param find makes an outboard, or gets it from somewhere; `undefined` if there is none
   * @param maxBytes how many bytes of outboards are remembered
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

  /** @throws whatever `find` rejects with */
  async get(digest: B3Digest, options?: AbortOptions): Promise<Outboard | undefined> {
    options?.signal?.throwIfAborted();
    const find = async (signal: AbortSignal) => {
      const outboard = await this.#find(digest, { signal });
      if (outboard !== undefined) this.#known.set(digest.hex, outboard);
      return outboard;
    };
    return this.#known.get(digest.hex) ?? (await this.#running.run(digest.hex, find, options));
  }
}
