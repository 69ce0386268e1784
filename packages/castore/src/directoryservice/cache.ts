import pLimit from "p-limit";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { SingleFlight } from "../bytes/single-flight.ts";
import { type CacheOptions, OriginCache } from "../cache/origin-cache.ts";
import { LocalWriter, WriteThrough } from "../cache/write-through.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import type { Measured, StoreStatistics } from "../model/statistics.ts";
import { ClosureSpool } from "./closure-spool.ts";
import type { DirectoryPutter, DirectoryService, RecursiveOptions } from "./directory-service.ts";
import { type EncodedDirectory, withDigests } from "./encoded-directory.ts";
import { skipDirectories } from "./traverse.ts";

/** How many trees are copied at the same time because a single directory was read, and how many others wait. */
const MAX_COPIES = 4;
const MAX_QUEUED = 1024;

/** How many trees are collected or stored at the same time. A further one is read and not stored. */
const MAX_TREES = 16;

/**
 * Directories in a local store in front of an origin.
 *
 * A directory may only be stored with everything below it. So a tree that is read recursively from the origin is
 * collected in a temporary file and stored once its last directory has come; whoever reads it does not wait for that.
 * After a single directory was read from the origin, its tree is read and stored in the background: 4 trees at a time,
 * with 1024 in a queue. What there is no room for is stored when it is read again.
 *
 * Failures of the local store are warned of and fail no call, see {@link CacheOptions}. Disposing of the cache abandons
 * what is not stored within half a second; neither store is disposed of.
 */
export class CacheDirectoryService implements DirectoryService, Measured {
  readonly #cache: OriginCache<DirectoryService>;
  readonly #asking = new SingleFlight<Directory | undefined>();
  /** How many trees are collected or stored. */
  #trees = 0;
  /** Trees that are stored, by digest of the root. */
  readonly #storing = new Map<string, Promise<unknown>>();
  /** Trees that are copied in the background, or wait for that, by digest of the root. */
  readonly #queued = new Set<string>();
  readonly #limit = pLimit(MAX_COPIES);

  constructor(options: CacheOptions<DirectoryService>) {
    this.#cache = new OriginCache("CacheDirectoryService", options);
  }

  /** Returns how many items the local store had, and lacked. */
  async statistics(): Promise<StoreStatistics> {
    return this.#cache.statistics();
  }

  async get(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    options?.signal?.throwIfAborted();
    const near = await this.#getNear(digest, options);
    this.#cache.count(near === undefined ? 0 : 1, near === undefined ? 1 : 0);
    if (near !== undefined) return near;
    const ask = (signal: AbortSignal) => this.#cache.far.get(digest, { signal });
    const far = await this.#asking.run(digest.key, ask, options);
    if (far !== undefined) this.#copyLater(digest);
    return far;
  }

  getMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (Directory | undefined)[]> {
    return this.#cache.ask(
      "get directories from",
      digests,
      (store, digests, options) => store.getMany(digests, options),
      options,
      (digest) => this.#copyLater(digest),
    );
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    return this.#cache.ask(
      "look up directories in",
      digests,
      (store, digests, options) => store.hasMany(digests, options),
      options,
    );
  }

  async *getRecursive(digest: B3Digest, options: RecursiveOptions = {}): AsyncGenerator<Directory> {
    const { skip, signal } = options;
    const tree = this.#readTree(digest, { signal });
    if (skip !== undefined) yield* skipDirectories(tree, skip);
    else for await (const { directory } of tree) yield directory;
  }

  openPutter(options?: AbortOptions): DirectoryPutter {
    const { near, far, mode } = this.#cache;
    if (mode === "near-only") return near.openPutter(options);
    if (mode === "far-only") return far.openPutter(options);
    return new WriteThroughTree(
      this.#cache,
      (store, options) => store.openPutter(options),
      options,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cache[Symbol.asyncDispose]();
  }

  #getNear(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    const get = (near: DirectoryService, options: AbortOptions) => near.get(digest, options);
    return this.#cache.read(`get directory ${digest} from`, get, options);
  }

  /** Reads a tree, the rest of it from the origin where the local store does not give all of it. */
  async *#readTree(digest: B3Digest, options: AbortOptions): AsyncGenerator<EncodedDirectory> {
    options.signal?.throwIfAborted();
    const yielded = new Set<string>();
    const action = `read the tree below ${digest} from`;
    const open = (near: DirectoryService, options: AbortOptions) =>
      near.getRecursive(digest, options);
    try {
      for await (const encoded of withDigests(this.#cache.stream(action, open, options))) {
        yielded.add(encoded.digest.key);
        yield encoded;
      }
      if (yielded.size > 0) {
        this.#cache.count(yielded.size, 0);
        return;
      }
    } catch {
      options.signal?.throwIfAborted(); // else it was warned of
    }
    let isAbsent = true;
    for await (const encoded of this.#readFar(digest, options)) {
      isAbsent = false;
      // The others still come after one that refers to them.
      if (!yielded.has(encoded.digest.key)) yield encoded;
    }
    if (isAbsent && yielded.size > 0) {
      const reason = "the local store breaks off, and the origin does not have it";
      throw new CastoreError("data_loss", `Cannot read the tree below ${digest}: ${reason}`);
    }
  }

  /** Reads a tree from the origin, and has it stored in the local store if it is read to its end. */
  async *#readFar(digest: B3Digest, options: AbortOptions): AsyncGenerator<EncodedDirectory> {
    const far = withDigests(this.#cache.far.getRecursive(digest, options));
    if (this.#trees >= MAX_TREES) {
      yield* far;
      return;
    }
    this.#trees += 1;
    using held = new DisposableStack();
    held.defer(() => {
      this.#trees -= 1;
    });
    const spool = held.use(new ClosureSpool());
    let isCollected = true;
    for await (const encoded of far) {
      try {
        if (isCollected) spool.add(encoded);
      } catch (error) {
        isCollected = false;
        this.#cache.warn(`collect the tree below ${digest} for`, error);
      }
      yield encoded;
    }
    isCollected &&= spool.get(digest) !== undefined && !this.#storing.has(digest.key);
    if (!isCollected) return;
    const whole = held.move();
    const stored = this.#store(digest, spool).finally(() => {
      this.#storing.delete(digest.key);
      whole.dispose();
    });
    this.#storing.set(digest.key, stored);
    this.#cache.inBackground(stored);
  }

  /** Stores a collected tree in the local store. */
  async #store(digest: B3Digest, spool: ClosureSpool): Promise<void> {
    const action = `store the tree below ${digest} in`;
    const open = (near: DirectoryService, options: AbortOptions) => near.openPutter(options);
    const options = { signal: this.#cache.closing };
    await using writer = new LocalWriter(this.#cache, action, open, options);
    for (const directory of spool.leavesFirst(digest)) {
      if (!(await writer.step((putter) => putter.put(directory)))) return;
    }
    await writer.step((putter) => putter.close());
  }

  /** Has a tree of the origin copied to the local store in the background, unless the queue is full. */
  #copyLater(digest: B3Digest): void {
    const { key } = digest;
    if (this.#queued.has(key) || this.#queued.size >= MAX_QUEUED) return;
    this.#queued.add(key);
    const copied = this.#limit(() => this.#copy(digest)).finally(() => this.#queued.delete(key));
    this.#cache.inBackground(copied);
  }

  async #copy(digest: B3Digest): Promise<void> {
    const options = { signal: this.#cache.closing };
    if ((await this.#getNear(digest, options)) !== undefined) return; // it came with another tree
    try {
      for await (const _ of this.#readFar(digest, options));
      await this.#storing.get(digest.key);
    } catch (error) {
      if (!options.signal.aborted) this.#cache.warn(`copy the tree below ${digest} to`, error);
    }
  }
}

/** Puts a tree into both stores. */
class WriteThroughTree
  extends WriteThrough<DirectoryService, DirectoryPutter>
  implements DirectoryPutter
{
  async put(directory: Directory): Promise<void> {
    await this.far.put(directory);
    await this.near.step((near) => near.put(directory));
  }
}
