import { encodeDirectory } from "../convert.ts";
import type { B3Digest } from "../digest.ts";
import type { Directory } from "../directory.ts";
import { CastoreError } from "../errors.ts";
import type { AbortOptions } from "../options.ts";
import { type TierOptions, Tiers, WriteThrough } from "../tiers.ts";
import { ClosureSpool } from "./closure-spool.ts";
import type { DirectoryPutter, DirectoryService } from "./directory-service.ts";

/** How many trees are copied to the near half at the same time. */
const MAX_FILLS = 4;

/**
 * Directories in two halves: a near one, such as a file, and a far one, such as a server.
 *
 * What only the far half has is kept in the near one when it is read, with everything below it: a directory
 * that the near half has is whole. A tree is copied once however many ask for it, or for something in it, at the
 * same time; nobody waits for that. At most four trees are copied at a time: others are, when they are asked for
 * again. A near half that fails is warned of and fails no read.
 *
 * Disposing of it gives up what is being copied; the halves stay open.
 */
export class CacheDirectoryService implements DirectoryService {
  readonly #tiers: Tiers<DirectoryService>;
  /** The trees that are being copied, and what is known to be in them, by digest of the root. */
  readonly #fills = new Map<string, { readonly parts: Set<string>; over: Promise<void> }>();
  readonly #closing = new AbortController();

  constructor(options: TierOptions<DirectoryService>) {
    this.#tiers = new Tiers("CacheDirectoryService", options);
  }

  async get(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    options?.signal?.throwIfAborted();
    const near = await this.#getNear(digest, options);
    if (near !== undefined) return near;
    const far = await this.#tiers.far.get(digest, options);
    if (far !== undefined) this.#fill(digest);
    return far;
  }

  async *getRecursive(digest: B3Digest, options?: AbortOptions): AsyncGenerator<Directory> {
    options?.signal?.throwIfAborted();
    const yielded = new Set<string>();
    if ((await this.#getNear(digest, options)) !== undefined) {
      try {
        for await (const directory of this.#tiers.near.getRecursive(digest, options)) {
          yielded.add(encodeDirectory(directory).digest.hex);
          yield directory;
        }
        if (yielded.size > 0) return; // else it has lost the tree since it was asked
      } catch (error) {
        options?.signal?.throwIfAborted();
        this.#tiers.warn(`read the tree below ${digest} from`, error);
      }
    }
    // What was yielded already came after one that refers to it, and so does the rest.
    for await (const directory of this.#readFar(digest, options)) {
      if (!yielded.has(encodeDirectory(directory).digest.hex)) yield directory;
    }
  }

  openPutter(options?: AbortOptions): DirectoryPutter {
    const { near, far, mode } = this.#tiers;
    if (mode === "near-only") return near.openPutter(options);
    if (mode === "far-only") return far.openPutter(options);
    const openNear = () => near.openPutter(options);
    return new WriteThroughTree(this.#tiers, far.openPutter(options), openNear, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new CastoreError("aborted", "Cannot go on: the service is disposed of"));
    await Promise.all([...this.#fills.values()].map(({ over }) => over));
  }

  #getNear(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    const action = `get directory ${digest} from`;
    return this.#tiers.tryNear(action, (near) => near.get(digest, options), options);
  }

  /** Reads a tree of the far half, and keeps it when all of it was read. */
  async *#readFar(digest: B3Digest, options?: AbortOptions): AsyncGenerator<Directory> {
    using spool = new ClosureSpool();
    for await (const directory of this.#tiers.far.getRecursive(digest, options)) {
      spool.add(encodeDirectory(directory));
      yield directory;
    }
    await this.#store(digest, spool);
  }

  /** Copies a tree to the near half, unless that is going on. Never rejects. */
  #fill(digest: B3Digest): void {
    const { hex } = digest;
    const fills = [...this.#fills.values()];
    if (fills.length >= MAX_FILLS || fills.some(({ parts }) => parts.has(hex))) return;
    const parts = new Set([hex]);
    const over = this.#copy(digest, parts).finally(() => this.#fills.delete(hex));
    this.#fills.set(hex, { parts, over });
  }

  async #copy(digest: B3Digest, parts: Set<string>): Promise<void> {
    const { signal } = this.#closing;
    try {
      using spool = new ClosureSpool();
      for await (const directory of this.#tiers.far.getRecursive(digest, { signal })) {
        spool.add(encodeDirectory(directory));
        for (const { node } of directory.entries) {
          if (node.type === "directory") parts.add(node.digest.hex);
        }
      }
      await this.#store(digest, spool);
    } catch (error) {
      if (!signal.aborted) this.#tiers.warn(`keep the tree below ${digest} in`, error);
    }
  }

  async #store(digest: B3Digest, spool: ClosureSpool): Promise<void> {
    const { signal } = this.#closing;
    const store = async (near: DirectoryService) => {
      await using putter = near.openPutter({ signal });
      let empty = true;
      for (const directory of spool.leavesFirst(digest)) {
        await putter.put(directory);
        empty = false;
      }
      if (!empty) await putter.close();
    };
    await this.#tiers.tryNear(`keep the tree below ${digest} in`, store, { signal });
  }
}

/** Puts a tree into both halves. */
class WriteThroughTree extends WriteThrough<DirectoryPutter> implements DirectoryPutter {
  async put(directory: Directory): Promise<void> {
    await this.far.put(directory);
    await this.near.try((near) => near.put(directory));
  }
}
