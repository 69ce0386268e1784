import { type AbortOptions, compareBytes } from "@tvix/castore";
import { expectHashPart } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import type { PathInfoService } from "./path-info-service.ts";

/** What {@link MemoryPathInfoService} keeps PathInfos in. */
type PathInfoMap = Pick<Map<string, PathInfo>, "clear"> & {
  get(key: string): PathInfo | undefined;
  set(key: string, pathInfo: PathInfo): unknown;
  values(): Iterable<PathInfo>;
};

/** Keeps PathInfos in memory, for as long as it lives. */
export class MemoryPathInfoService implements PathInfoService {
  readonly #pathInfos: PathInfoMap;

  /** @param pathInfos where they are kept, by hash part. Default: a map */
  constructor(pathInfos: PathInfoMap = new Map()) {
    this.#pathInfos = pathInfos;
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
  return Buffer.from(hashPart).toString("hex");
}
