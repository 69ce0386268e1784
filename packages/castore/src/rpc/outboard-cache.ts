import { LRUCache } from "lru-cache";
import pLimit from "p-limit";
import type { BlobService } from "../blobservice/blob-service.ts";
import { outboardOf } from "../blobservice/verified-range.ts";
import type { B3Digest } from "../digest.ts";
import type { Outboard } from "../hash/outboard.ts";
import { MAX_MESSAGE_BYTES } from "../limits.ts";
import type { AbortOptions } from "../options.ts";
import { SharedFlight } from "../shared-flight.ts";

/** How many bytes of outboards are remembered: those of 8 GB of blobs. */
const CACHE_BYTES = 32 * 1024 * 1024;

/** How many are made at the same time, for each of which a blob is read and hashed. */
const MADE_AT_ONCE = 2;

/** What else a response has, in bytes: tag and length of the outboard. */
const OVERHEAD = 16;

/** Makes the outboards of the blobs of a service, each once for all who ask for it, and remembers the last ones. */
export class OutboardCache {
  readonly #blobService: BlobService;
  readonly #known = new LRUCache<string, Outboard>({
    maxSize: CACHE_BYTES,
    sizeCalculation: ({ bytes }) => bytes.length,
  });
  readonly #running = new SharedFlight<Outboard | undefined>();
  readonly #limit = pLimit(MADE_AT_ONCE);

  constructor(blobService: BlobService) {
    this.#blobService = blobService;
  }

  /**
   * @returns `undefined` if there is no such blob
   * @throws CastoreError `resource_exhausted` if it does not fit in a message
   */
  async get(digest: B3Digest, options?: AbortOptions): Promise<Outboard | undefined> {
    const make = async (signal: AbortSignal) => {
      const limits = { maxBytes: MAX_MESSAGE_BYTES - OVERHEAD, signal };
      const outboard = await this.#limit(() => outboardOf(this.#blobService, digest, limits));
      if (outboard !== undefined) this.#known.set(digest.hex, outboard);
      return outboard;
    };
    return this.#known.get(digest.hex) ?? (await this.#running.run(digest.hex, make, options));
  }
}
