import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import type { DirectoryPutter, DirectoryService, RecursiveOptions } from "./directory-service.ts";
import type { EncodedDirectory } from "./encoded-directory.ts";
import { StagedTree } from "./staged-tree.ts";
import { traverseDirectory } from "./traverse.ts";

/** Keeps directories in memory, for as long as it lives. */
export class MemoryDirectoryService implements DirectoryService {
  readonly #directories = new Map<string, Directory>();

  async get(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    options?.signal?.throwIfAborted();
    return this.#directories.get(digest.key);
  }

  async getMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (Directory | undefined)[]> {
    options?.signal?.throwIfAborted();
    return digests.map(({ key }) => this.#directories.get(key));
  }

  async hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    options?.signal?.throwIfAborted();
    return digests.map(({ key }) => this.#directories.has(key));
  }

  getRecursive(digest: B3Digest, options?: RecursiveOptions): AsyncIterable<Directory> {
    return traverseDirectory((digests) => this.getMany(digests), digest, options);
  }

  openPutter(options?: AbortOptions): DirectoryPutter {
    const staged: EncodedDirectory[] = [];
    return new StagedTree(
      {
        async add(encoded) {
          staged.push(encoded);
        },
        commit: async () => {
          for (const { digest, directory } of staged) this.#directories.set(digest.key, directory);
        },
        discard: () => {
          staged.length = 0;
        },
      },
      options,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#directories.clear();
  }
}
