import type {
  AbortOptions,
  B3Digest,
  Directory,
  DirectoryPutter,
  DirectoryService,
  RecursiveOptions,
} from "@tvix/castore";
import { repeat, repeatingCollector } from "./repeat.ts";

/**
 * Makes the calls of a directory service again that fail with `unavailable` or `data_loss`, or say that something is
 * absent: in spite of faults, it does all that the suite expects. Everything is held in memory.
 */
export class RepeatingDirectoryService implements DirectoryService {
  readonly #service: DirectoryService;

  /** @param service is disposed of with it */
  constructor(service: DirectoryService) {
    this.#service = service;
  }

  get(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    const isAbsent = (found: Directory | undefined) => found === undefined;
    return repeat(() => this.#service.get(digest, options), { ...options, isAbsent });
  }

  getMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (Directory | undefined)[]> {
    const isAbsent = (found: readonly unknown[]) => found.includes(undefined);
    return repeat(() => this.#service.getMany(digests, options), { ...options, isAbsent });
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    const isAbsent = (found: readonly boolean[]) => found.includes(false);
    return repeat(() => this.#service.hasMany(digests, options), { ...options, isAbsent });
  }

  async *getRecursive(digest: B3Digest, options?: RecursiveOptions): AsyncGenerator<Directory> {
    const read = () => Array.fromAsync(this.#service.getRecursive(digest, options));
    const isAbsent = (found: readonly Directory[]) => found.length === 0;
    for (const directory of await repeat(read, { ...options, isAbsent })) {
      options?.signal?.throwIfAborted();
      yield directory;
    }
  }

  openPutter(options?: AbortOptions): DirectoryPutter {
    const { add, ...rest } = repeatingCollector(
      () => this.#service.openPutter(options),
      (putter, directory: Directory) => putter.put(directory),
      options,
    );
    return { put: add, ...rest };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#service[Symbol.asyncDispose]();
  }
}
