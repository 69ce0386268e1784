import { type AbortOptions, copyClosure, type Node } from "@tvix/castore";
import { StoreError } from "../errors.ts";
import type { PathInfo } from "../pathinfo.ts";
import type {
  ContentServices,
  CopyContentsOptions,
  PathMetadata,
  StorePathServices,
  StorePathSource,
} from "./store-path-source.ts";

/** The store paths of three services. Disposing leaves the services open. */
export class StoredPaths implements StorePathSource {
  readonly name: string;
  readonly #services: StorePathServices;

  constructor(name: string, services: StorePathServices) {
    this.name = name;
    this.#services = services;
  }

  async getMany(
    hashParts: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly (PathInfo | undefined)[]> {
    return await this.#services.pathInfoService.getMany(hashParts, options);
  }

  /** The tree is verified by its digests; that its NAR is that of the PathInfo, the source vouches for. */
  async copyContents(
    { storePath }: PathMetadata,
    to: ContentServices,
    { signal, onProgress }: CopyContentsOptions = {},
  ): Promise<Node> {
    const pathInfo = await this.#services.pathInfoService.get(storePath.hashPart, { signal });
    if (pathInfo === undefined) {
      throw new StoreError("not_found", `Cannot copy "${storePath}": ${this.name} has lost it`);
    }
    await copyClosure(this.#services, to, pathInfo.node, {
      signal,
      onProgress: ({ directories, blobs, bytes, copiedBytes }) =>
        onProgress?.({ entries: directories + blobs, bytes, newBytes: copiedBytes }),
    });
    return pathInfo.node;
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
