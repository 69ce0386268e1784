import {
  type AbortOptions,
  type BlobService,
  type DirectoryService,
  mapInParallel,
  SingleFlight,
} from "@tvix/castore";
import { StoreError } from "../errors.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { expectHashPart } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import { BinaryCache, type BinaryCacheOptions } from "./binary-cache.ts";
import type { PathInfoService } from "./path-info-service.ts";

/** Options of {@link NixHttpPathInfoService}. */
export interface NixHttpOptions extends BinaryCacheOptions {
  /** Store the contents. Not disposed of with the service. */
  blobService: BlobService;
  directoryService: DirectoryService;
}

/** How many store paths of one batch are fetched at the same time. */
const CONCURRENCY = 8;

/**
 * Reads PathInfos from a {@link BinaryCache}. A `get` also stores the contents. Concurrent calls for one store path share
 * one download, which is cancelled when all of them are. PathInfos are not stored: that is for a cache in front of this
 * service.
 *
 * `get` throws what {@link BinaryCache.getNarInfo} and {@link BinaryCache.store} throw. `put` and listing throw StoreError
 * `unimplemented`.
 */
export class NixHttpPathInfoService implements PathInfoService {
  readonly #cache: BinaryCache;
  readonly #services: { blobService: BlobService; directoryService: DirectoryService };
  readonly #running = new SingleFlight<PathInfo | undefined>();

  /** @throws CastoreError `invalid_argument` if the proxy that the environment names is not one of HTTP */
  constructor({ blobService, directoryService, ...options }: NixHttpOptions) {
    this.#cache = new BinaryCache(options);
    this.#services = { blobService, directoryService };
  }

  async get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    expectHashPart(hashPart);
    const hash = encodeNixbase32(hashPart);
    const get = async (signal: AbortSignal) => {
      const narInfo = await this.#cache.getNarInfo(hash, { signal });
      return narInfo && (await this.#cache.store(narInfo, this.#services, { signal }));
    };
    return await this.#running.run(hash, get, options);
  }

  async getMany(
    hashParts: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly (PathInfo | undefined)[]> {
    options?.signal?.throwIfAborted();
    hashParts.forEach(expectHashPart);
    const get = (hashPart: Uint8Array, options: AbortOptions) => this.get(hashPart, options);
    return await mapInParallel(hashParts, CONCURRENCY, get, options);
  }

  async put(): Promise<PathInfo> {
    throw this.#refusal("put to", "binary caches are read-only");
  }

  list(): AsyncGenerator<never> {
    return this.listPages();
  }

  // biome-ignore lint/correctness/useYield: it only throws
  async *listPages(): AsyncGenerator<never> {
    throw this.#refusal("list", "binary caches cannot be listed");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cache[Symbol.asyncDispose]();
  }

  #refusal(action: string, reason: string): StoreError {
    return new StoreError("unimplemented", `Cannot ${action} ${this.#cache.name}: ${reason}`);
  }
}
