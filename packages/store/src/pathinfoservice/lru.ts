import { type AbortOptions, compareBytes } from "@tvix/castore";
import { LRUCache } from "lru-cache";
import { expectHashPart } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import type { PathInfoService } from "./path-info-service.ts";

/** Keeps the PathInfos in memory that were put or asked for last. What is forgotten is gone: it is a cache. */
export class LruPathInfoService implements PathInfoService {
  readonly #pathInfos: LRUCache<string, PathInfo>;

  /** @param options.capacity how many PathInfos are kept, at least 1 */
  constructor({ capacity }: { capacity: number }) {
    this.#pathInfos = new LRUCache({ max: capacity });
  }

  async get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    options?.signal?.throwIfAborted();
    expectHashPart(hashPart);
    return this.#pathInfos.get(keyOf(hashPart));
  }

  async put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo> {
    options?.signal?.throwIfAborted();
    this.#pathInfos.set(keyOf(pathInfo.storePath.hashPart), pathInfo);
    return pathInfo;
  }

  async *list(options?: AbortOptions): AsyncGenerator<PathInfo> {
    options?.signal?.throwIfAborted();
    const sorted = [...this.#pathInfos.values()].sort((a, b) =>
      compareBytes(a.storePath.hashPart, b.storePath.hashPart),
    );
    for (const pathInfo of sorted) {
      options?.signal?.throwIfAborted();
      yield pathInfo;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#pathInfos.clear();
  }
}

function keyOf(hashPart: Uint8Array): string {
  return Buffer.from(hashPart).toString("latin1");
}
