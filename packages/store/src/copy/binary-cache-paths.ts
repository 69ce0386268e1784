import { type AbortOptions, mapInParallel, type Node } from "@tvix/castore";
import type { NarInfo } from "../nix/narinfo.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { BinaryCache, type BinaryCacheOptions } from "../pathinfoservice/binary-cache.ts";
import type {
  ContentServices,
  CopyContentsOptions,
  PathMetadata,
  StorePathSource,
} from "./store-path-source.ts";

/** How many narinfos are fetched at the same time. */
const CONCURRENCY = 16;

/** The store paths of a binary cache of Nix. Narinfos are verified by their signatures, NARs by hash and size. */
export class BinaryCachePaths implements StorePathSource {
  readonly name: string;
  readonly #cache: BinaryCache;
  /** Narinfos whose contents were not asked for yet, by hash part. */
  readonly #narInfos = new Map<string, NarInfo>();

  /** @throws CastoreError `invalid_argument` if the proxy that the environment names is not one of HTTP */
  constructor(options: BinaryCacheOptions) {
    this.#cache = new BinaryCache(options);
    this.name = this.#cache.name;
  }

  async getMany(
    hashParts: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly (PathMetadata | undefined)[]> {
    const get = async (hashPart: Uint8Array, options: AbortOptions) => {
      const hash = encodeNixbase32(hashPart);
      const narInfo = await this.#cache.getNarInfo(hash, options);
      if (narInfo !== undefined) this.#narInfos.set(hash, narInfo);
      return narInfo && metadataOf(narInfo);
    };
    return await mapInParallel(hashParts, CONCURRENCY, get, options);
  }

  async copyContents(
    { storePath }: PathMetadata,
    to: ContentServices,
    { signal, onProgress }: CopyContentsOptions = {},
  ): Promise<Node> {
    const hash = encodeNixbase32(storePath.hashPart);
    const narInfo = this.#narInfos.get(hash)!;
    const watch = async function* (nar: AsyncIterable<Uint8Array>) {
      let bytes = 0;
      for await (const data of nar) {
        yield data;
        bytes += data.length;
        onProgress?.({ entries: 0, bytes, newBytes: undefined });
      }
    };
    const { node } = await this.#cache.store(narInfo, to, { signal, watch });
    this.#narInfos.delete(hash);
    return node;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cache[Symbol.asyncDispose]();
  }
}

function metadataOf(narInfo: NarInfo): PathMetadata {
  const { storePath, references, narSize, narSha256, signatures, deriver, ca } = narInfo;
  return {
    ...{ storePath, references, narSize, narSha256, signatures },
    ...(deriver && { deriver }),
    ...(ca && { ca }),
  };
}
