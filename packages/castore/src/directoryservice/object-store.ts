import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { ByteBudget } from "../bytes/byte-budget.ts";
import { collectAtMost } from "../bytes/byte-string.ts";
import { mapInParallel } from "../bytes/parallel.ts";
import { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import { CastoreError, hasCode } from "../model/errors.ts";
import { MAX_MESSAGE_BYTES } from "../model/limits.ts";
import { DamagedObjects } from "../objectstore/damaged-objects.ts";
import { objectKey } from "../objectstore/object-key.ts";
import type { ObjectStore } from "../objectstore/object-store.ts";
import { ClosureSpool, childrenOf } from "./closure-spool.ts";
import type { DirectoryPutter, DirectoryService, RecursiveOptions } from "./directory-service.ts";
import { decodeDirectoryOf, encodeDirectory, withDigests } from "./encoded-directory.ts";
import { RootToLeavesValidator } from "./order-validator.ts";
import { StagedTree } from "./staged-tree.ts";
import { skipDirectories, traverseDirectory } from "./traverse.ts";
import { decodeTree, encodeTree } from "./tree-format.ts";

/** Options of {@link ObjectStoreDirectoryService}. */
export interface ObjectStoreDirectoryOptions {
  /** Where the objects are. Disposed of with the service. */
  store: ObjectStore;
  /** Is told of damaged objects that were met. Default: a process warning. */
  onCorrupt?: (message: string) => void;
}

/** The folder of directories by their own digests. */
const INNER = "dirs-inner";

/** How many requests are made at the same time for one tree, or one batch. */
const REQUESTS = 32;

/** How many bytes of directories are sent at the same time. */
const BYTES_IN_FLIGHT = 16 * 1024 * 1024;

/** After how many directories other events get their turn. */
const DIRECTORIES_PER_TURN = 64;

/**
 * Keeps directories in an object store. `dirs/b3/<4 hex>/<hex>` is a tree, under the digest of its root, in the
 * layout of tvix: zstd of its directories from the root to the leaves, each after its length. So that
 * every directory of the tree is found by its own digest, `dirs-inner/b3/<4 hex>/<hex>` is one of them: the
 * digest of the root, and the directory. See docs/formats.md.
 *
 * The leaves are stored first, the tree after all directories but the root, and the root last: at every instant,
 * whatever is found is whole. A tree of which storing fails leaves such parts of it that are whole. Every object of a
 * tree is looked up when the tree is put: whichever of them is missing, for whatever reason, is stored again.
 *
 * Objects that are found damaged are deleted, as {@link DamagedObjects} does it.
 *
 * Below the root of a tree that tvix wrote, directories are found only through the root, until the tree is put again.
 */
export class ObjectStoreDirectoryService implements DirectoryService {
  readonly #store: ObjectStore;
  readonly #damaged: DamagedObjects;
  readonly #budget = new ByteBudget(BYTES_IN_FLIGHT);

  constructor(options: ObjectStoreDirectoryOptions) {
    const { store, onCorrupt = (message) => process.emitWarning(message) } = options;
    this.#store = store;
    this.#damaged = new DamagedObjects(store, onCorrupt);
  }

  async get(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    options?.signal?.throwIfAborted();
    return (
      (await this.#getInner(digest, options))?.directory ?? (await this.#getRoot(digest, options))
    );
  }

  getMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (Directory | undefined)[]> {
    const get = (digest: B3Digest, options: AbortOptions) => this.get(digest, options);
    return mapInParallel(digests, REQUESTS, get, options);
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    const has = async (digest: B3Digest, options: AbortOptions) =>
      (await this.#damaged.has(innerKey(digest), options)) ||
      (await this.#damaged.has(treeKey(digest), options));
    return mapInParallel(digests, REQUESTS, has, options);
  }

  getRecursive(digest: B3Digest, options?: RecursiveOptions): AsyncIterable<Directory> {
    const tree = this.#readAll(digest, { signal: options?.signal });
    return options?.skip ? skipDirectories(withDigests(tree), options.skip) : tree;
  }

  openPutter(options?: AbortOptions): DirectoryPutter {
    const spool = new ClosureSpool();
    let root: B3Digest | undefined;
    return new StagedTree(
      {
        async add(encoded) {
          spool.add(encoded);
          root = encoded.digest;
        },
        commit: (options) => this.#commit(root!, spool, options),
        discard: () => spool[Symbol.dispose](),
      },
      options,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store[Symbol.asyncDispose]();
  }

  async *#readAll(digest: B3Digest, options?: AbortOptions): AsyncGenerator<Directory> {
    options?.signal?.throwIfAborted();
    let begun = false;
    try {
      for await (const directory of this.#readTree(digest, options)) {
        begun = true;
        yield directory;
      }
      if (begun) return;
    } catch (error) {
      if (begun || !hasCode(error, "data_loss")) throw error; // a root that cannot be read is absent
    }
    const inner = await this.#getInner(digest, options);
    if (inner !== undefined) yield* this.#readBelow(digest, inner, options);
  }

  async #commit(root: B3Digest, spool: ClosureSpool, options?: AbortOptions): Promise<void> {
    const [top, ...levels] = (await levelsOf(root, spool, options)).toReversed();
    for (const level of levels.toReversed()) {
      const put = (digest: B3Digest, options: AbortOptions) =>
        this.#putInner(digest, root, spool, options);
      await mapInParallel(level, REQUESTS, put, options);
    }
    await this.#putTree(root, spool, options);
    for (const digest of top ?? []) await this.#putInner(digest, root, spool, options);
  }

  /** Stores a directory by its own digest, unless it is there. */
  async #putInner(
    digest: B3Digest,
    root: B3Digest,
    spool: ClosureSpool,
    options?: AbortOptions,
  ): Promise<void> {
    const key = innerKey(digest);
    if (await this.#damaged.has(key, options)) return;
    const { bytes } = encodeDirectory(spool.get(digest)!);
    await this.#budget.take(bytes.length, options);
    try {
      await this.#store.put(key, Buffer.concat([root.bytes, bytes]), options);
    } finally {
      this.#budget.release(bytes.length);
    }
  }

  /** Stores a tree, unless it is there. */
  async #putTree(root: B3Digest, spool: ClosureSpool, options?: AbortOptions): Promise<void> {
    const key = treeKey(root);
    if (await this.#damaged.has(key, options)) return;
    await using upload = this.#store.openUpload(key, options);
    for await (const data of encodeTree(spool.rootFirst(root))) await upload.write(data);
    await upload.close();
  }

  /** Reads the root of a tree; `undefined` if there is none of that digest. */
  async #getRoot(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    try {
      for await (const directory of this.#readTree(digest, options)) return directory;
    } catch (error) {
      if (!hasCode(error, "data_loss")) throw error;
    }
    return undefined;
  }

  /** Reads a directory that is an object of its own; `undefined` if there is none of that digest. */
  async #getInner(digest: B3Digest, options?: AbortOptions): Promise<InnerDirectory | undefined> {
    const parse = (contents: AsyncIterable<Uint8Array>) => parseInner(digest, contents);
    const found = await this.#damaged.read(innerKey(digest), parse, options);
    return typeof found === "string" ? undefined : found;
  }

  /** Reads a directory and everything below it, from the tree that it is in as far as that can be read. */
  async *#readBelow(
    digest: B3Digest,
    { root, directory }: InnerDirectory,
    options?: AbortOptions,
  ): AsyncGenerator<Directory> {
    using spool = new ClosureSpool();
    spool.add(encodeDirectory(directory));
    if (!root.equals(digest) && childrenOf(directory).length > 0) {
      try {
        for await (const found of this.#readTree(root, options)) spool.add(encodeDirectory(found));
      } catch (error) {
        if (!hasCode(error, "data_loss")) throw error;
      }
    }
    const get = async (digest: B3Digest, options: AbortOptions) =>
      spool.get(digest) ?? (await this.#getInner(digest, options))?.directory;
    const getMany = (digests: readonly B3Digest[], options?: AbortOptions) =>
      mapInParallel(digests, REQUESTS, get, options);
    yield* traverseDirectory(getMany, digest, options);
  }

  /** Reads a tree; nothing if there is none with that root. */
  async *#readTree(root: B3Digest, options?: AbortOptions): AsyncGenerator<Directory> {
    const key = treeKey(root);
    const object = await this.#store.get(key, { signal: options?.signal });
    if (object === undefined) return;
    try {
      yield* parseTree(root, object, options);
    } catch (error) {
      if (!hasCode(error, "data_loss")) throw error;
      // Read anew, to be deleted unless it is whole: what came so far was handed on already.
      const check = async (contents: AsyncIterable<Uint8Array>) => {
        for await (const _ of parseTree(root, contents, options));
      };
      await this.#damaged.read(key, check, options);
      throw error;
    }
  }
}

/** Returns the directories of a tree by height, the leaves first, the root alone last. */
async function levelsOf(
  root: B3Digest,
  spool: ClosureSpool,
  options?: AbortOptions,
): Promise<readonly (readonly B3Digest[])[]> {
  const heights = new Map<string, number>();
  const levels: B3Digest[][] = [];
  for (const directory of spool.leavesFirst(root)) {
    const { digest } = encodeDirectory(directory);
    const below = childrenOf(directory).map(({ key }) => heights.get(key) ?? -1);
    const height = 1 + below.reduce((highest, one) => Math.max(highest, one), -1);
    heights.set(digest.key, height);
    levels[height] ??= [];
    levels[height].push(digest);
    if (heights.size % DIRECTORIES_PER_TURN === 0) await yieldToEvents();
    options?.signal?.throwIfAborted();
  }
  return levels;
}

/** A directory, and the root of a tree that it is in. */
interface InnerDirectory {
  readonly root: B3Digest;
  readonly directory: Directory;
}

/** @throws CastoreError `data_loss` for contents that are not the directory */
async function parseInner(
  digest: B3Digest,
  contents: AsyncIterable<Uint8Array>,
): Promise<InnerDirectory> {
  const bytes = await collectAtMost(contents, B3Digest.LENGTH + MAX_MESSAGE_BYTES);
  if (bytes === undefined || bytes.length < B3Digest.LENGTH) {
    const expected = `expected ${B3Digest.LENGTH} to ${B3Digest.LENGTH + MAX_MESSAGE_BYTES} bytes`;
    throw new CastoreError("data_loss", `${expected}, found ${bytes?.length ?? "more"}`);
  }
  const root = B3Digest.fromBytes(bytes.subarray(0, B3Digest.LENGTH));
  return { root, directory: decodeDirectoryOf(digest, bytes.subarray(B3Digest.LENGTH)) };
}

/** @throws CastoreError `data_loss`, from iterating, for contents that are not the tree below the root */
async function* parseTree(
  root: B3Digest,
  contents: AsyncIterable<Uint8Array>,
  options?: AbortOptions,
): AsyncGenerator<Directory> {
  const validator = new RootToLeavesValidator(root);
  try {
    for await (const directory of decodeTree(contents, options)) {
      validator.add(encodeDirectory(directory));
      options?.signal?.throwIfAborted();
      yield directory;
    }
    validator.finish();
  } catch (error) {
    const isInvalid = error instanceof CastoreError && error.code === "invalid_argument";
    if (!isInvalid) throw error;
    throw new CastoreError("data_loss", error.message, { cause: error });
  }
}

function treeKey(root: B3Digest): string {
  return objectKey("dirs", root);
}

function innerKey(digest: B3Digest): string {
  return objectKey(INNER, digest);
}
