import pLimit from "p-limit";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { SingleFlight } from "../bytes/single-flight.ts";
import { type TierOptions, Tiers } from "../cache/tiers.ts";
import { WriteThrough } from "../cache/write-through.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import type { DirectoryPutter, DirectoryService, RecursiveOptions } from "./directory-service.ts";
import { encodeDirectory, withDigests } from "./encoded-directory.ts";
import { getOneByOne, hasOneByOne } from "./one-by-one.ts";
import { skipDirectories } from "./traverse.ts";
import { TreeFill } from "./tree-fill.ts";

/** How many trees are copied at the same time that were asked for by single directories. */
const MAX_COPIES = 4;

/** How many others wait for that. */
const MAX_QUEUED = 1024;

/** While so many trees are being read or copied, a further one that is read is not kept. */
const MAX_TREES = 16;

/**
 * Directories in two halves: a near one, such as a file, and a far one, such as a server.
 *
 * What only the far half has is kept in the near one when it is read, with everything below it: a directory
 * that the near half has is whole. A tree is read and copied once however many ask for it, or for something in it, at
 * the same time; nobody waits for the near half, nor for one another. A tree that is read recursively is kept when
 * somebody has read it to its end.
 *
 * How much is copied at the same time is bounded. For single directories that were asked for, four trees are, and 1024
 * more wait for their turn; a tree that is read recursively while 16 are under way is read all the same. What is not
 * kept for that is when it is asked for again.
 *
 * A near half that fails is warned of and fails no read. Nor does one that is silent, see
 * {@link TierOptions.nearReadTimeoutMs}.
 *
 * Disposing of it gives up what is not copied within half a second; the halves stay open.
 */
export class CacheDirectoryService implements DirectoryService {
  readonly #tiers: Tiers<DirectoryService>;
  readonly #asking = new SingleFlight<Directory | undefined>();
  /** The trees that are being read or copied, by digest of the root. */
  readonly #trees = new Map<string, TreeFill>();
  /** The roots of those that are to be copied, by digest. */
  readonly #queued = new Set<string>();
  readonly #limit = pLimit(MAX_COPIES);

  constructor(options: TierOptions<DirectoryService>) {
    this.#tiers = new Tiers("CacheDirectoryService", options);
  }

  async get(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    options?.signal?.throwIfAborted();
    const near = await this.#getNear(digest, options);
    if (near !== undefined) return near;
    const ask = (signal: AbortSignal) => this.#tiers.far.get(digest, { signal });
    const far = await this.#asking.run(digest.hex, ask, options);
    if (far !== undefined) this.#keep(digest);
    return far;
  }

  getMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (Directory | undefined)[]> {
    return getOneByOne(this, digests, options);
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    return hasOneByOne(this, digests, options);
  }

  getRecursive(digest: B3Digest, options?: RecursiveOptions): AsyncIterable<Directory> {
    const tree = this.#readAll(digest, { signal: options?.signal });
    return options?.skip ? skipDirectories(withDigests(tree), options.skip) : tree;
  }

  async *#readAll(digest: B3Digest, options?: AbortOptions): AsyncGenerator<Directory> {
    options?.signal?.throwIfAborted();
    const yielded = new Set<string>();
    if ((await this.#getNear(digest, options)) !== undefined) {
      const action = `read the tree below ${digest} from`;
      const open = async (near: DirectoryService, options: AbortOptions) =>
        near.getRecursive(digest, options);
      try {
        const stream = await this.#tiers.openNear(action, open, options);
        for await (const directory of stream ?? []) {
          yielded.add(encodeDirectory(directory).digest.hex);
          yield directory;
        }
        if (yielded.size > 0) return; // else it has lost the tree since it was asked
      } catch (error) {
        options?.signal?.throwIfAborted();
        this.#tiers.warn(action, error);
      }
    }
    // What was yielded already came after one that refers to it, and so does the rest.
    for await (const directory of this.#readFar(digest, options)) {
      const isNew = yielded.size === 0 || !yielded.has(encodeDirectory(directory).digest.hex);
      if (isNew) yield directory;
    }
  }

  openPutter(options?: AbortOptions): DirectoryPutter {
    const { near, far, mode } = this.#tiers;
    if (mode === "near-only") return near.openPutter(options);
    if (mode === "far-only") return far.openPutter(options);
    const open = (half: DirectoryService, options?: AbortOptions) => half.openPutter(options);
    return new WriteThroughTree(this.#tiers, open, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tiers[Symbol.asyncDispose]();
  }

  #getNear(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    const action = `get directory ${digest} from`;
    return this.#tiers.tryNear(action, (near, options) => near.get(digest, options), options);
  }

  /** Reads a tree of the far half, along with others who do. */
  #readFar(digest: B3Digest, options?: AbortOptions): AsyncIterable<Directory> {
    const running = this.#trees.get(digest.hex);
    if (running !== undefined) return running.read(options);
    const isFull = this.#trees.size >= MAX_TREES || this.#tiers.writing.isSilent;
    if (isFull) return this.#tiers.far.getRecursive(digest, options);
    return this.#begin(digest).read(options);
  }

  /** Has a tree copied to the near half, unless that is going on, or there is no room to wait for it. */
  #keep(digest: B3Digest): void {
    const { hex } = digest;
    const running = [...this.#trees.values()].find((tree) => tree.has(digest));
    if (running !== undefined) {
      this.#tiers.inBackground(running.copy());
      return;
    }
    if (this.#queued.has(hex) || this.#queued.size >= MAX_QUEUED) return;
    this.#queued.add(hex);
    this.#tiers.inBackground(this.#limit(() => this.#copy(digest)));
  }

  async #copy(digest: B3Digest): Promise<void> {
    this.#queued.delete(digest.hex);
    const { closing, writing } = this.#tiers;
    if (closing.aborted || writing.isSilent) return;
    const running = this.#trees.get(digest.hex);
    // It may have come with another tree meanwhile.
    const isNear = async () => (await this.#getNear(digest, { signal: closing })) !== undefined;
    if (running === undefined && (await isNear())) return;
    await (this.#trees.get(digest.hex) ?? this.#begin(digest)).copy();
  }

  #begin(digest: B3Digest): TreeFill {
    const tree = new TreeFill(digest, this.#tiers, () => this.#trees.delete(digest.hex));
    this.#trees.set(digest.hex, tree);
    return tree;
  }
}

/** Puts a tree into both halves. */
class WriteThroughTree
  extends WriteThrough<DirectoryService, DirectoryPutter>
  implements DirectoryPutter
{
  async put(directory: Directory): Promise<void> {
    await this.far.put(directory);
    await this.near.try((near) => near.put(directory));
  }
}
