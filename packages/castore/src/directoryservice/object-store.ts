import type { AbortOptions } from "../bytes/abort-options.ts";
import { ByteBudget } from "../bytes/byte-budget.ts";
import { collectAtMost } from "../bytes/byte-string.ts";
import { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import { MAX_MESSAGE_BYTES } from "../model/limits.ts";
import { DamageMarks } from "../objectstore/damage-marks.ts";
import { digestOfKey, objectKey } from "../objectstore/digest-key.ts";
import type { ObjectStore } from "../objectstore/object-store.ts";
import { ClosureSpool, childrenOf } from "./closure-spool.ts";
import type { DirectoryPutter, DirectoryService, RecursiveOptions } from "./directory-service.ts";
import { decodeDirectoryOf, encodeDirectory, withDigests } from "./encoded-directory.ts";
import { getOneByOne, hasOneByOne } from "./one-by-one.ts";
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

/** How many requests are made at the same time for one tree. */
const REQUESTS = 32;

/** How many bytes of directories are sent at the same time. */
const BYTES_IN_FLIGHT = 16 * 1024 * 1024;

/** A directory that is to be sent. */
interface Upload {
  readonly digest: B3Digest;
  readonly length: number;
  readonly children: readonly B3Digest[];
  /** Those that refer to it, which are sent after it. */
  readonly parents: Upload[];
  /** How many of those that it refers to are not sent yet. */
  waitsFor: number;
}

/**
 * Keeps directories in an object store. `dirs/b3/<4 hex>/<hex>` is a tree, under the digest of its root, in the
 * layout of tvix: zstd of its directories from the root to the leaves, each after its length. So that
 * every directory of the tree is found by its own digest, `dirs-inner/b3/<4 hex>/<hex>` is one of them: the
 * digest of the root, and the directory. See docs/formats.md.
 *
 * The leaves are stored first, the tree after all of them but the root, and the root last: whatever is found is whole
 * at every instant, and what is below a directory that was stored before is not looked at again. A tree of which
 * storing fails leaves such parts of it that are whole.
 *
 * What is found damaged, or missing below a directory, is marked, and stored again with the next tree that it is in, by
 * whatever process.
 *
 * Below the root of a tree that tvix wrote, directories are only found through the root, until it is put again.
 */
export class ObjectStoreDirectoryService implements DirectoryService {
  readonly #store: ObjectStore;
  readonly #onCorrupt: (message: string) => void;
  readonly #budget = new ByteBudget(BYTES_IN_FLIGHT);
  readonly #marks: DamageMarks;

  constructor({ store, onCorrupt }: ObjectStoreDirectoryOptions) {
    this.#store = store;
    this.#marks = new DamageMarks(store);
    this.#onCorrupt = onCorrupt ?? ((message) => process.emitWarning(message));
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
    return getOneByOne(this, digests, options);
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    return hasOneByOne(this, digests, options);
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
      if (begun || !isDataLoss(error)) throw error; // a root that cannot be read is absent
    }
    const inner = await this.#getInner(digest, options);
    if (inner !== undefined) yield* this.#readBelow(digest, inner, options);
  }

  async #commit(root: B3Digest, spool: ClosureSpool, options?: AbortOptions): Promise<void> {
    const uploads = await this.#findAbsent(root, spool, options);
    const isTreeThere = await this.#has(treeKey(root), options);
    const rootUpload = uploads.get(root.hex);
    uploads.delete(root.hex);
    for (const upload of uploads.values()) {
      const children = upload.children.flatMap(({ hex }) => uploads.get(hex) ?? []);
      upload.waitsFor = children.length;
      for (const child of children) child.parents.push(upload);
    }
    const isReady = ({ waitsFor }: Upload) => waitsFor === 0;
    const ready = uploads.values().filter(isReady).toArray();
    await drain(ready, async (upload) => {
      await this.#putInner(root, upload, spool, options);
      for (const parent of upload.parents) parent.waitsFor -= 1;
      ready.push(...upload.parents.filter(isReady));
    });
    if (!isTreeThere) await this.#putTree(root, spool, options);
    if (rootUpload !== undefined) await this.#putInner(root, rootUpload, spool, options);
  }

  /**
   * The directories of a tree that are not stored yet, by digest. Everything below one that is, is too, except for what
   * is marked.
   */
  async #findAbsent(
    root: B3Digest,
    spool: ClosureSpool,
    options?: AbortOptions,
  ): Promise<Map<string, Upload>> {
    const absent = new Map<string, Upload>();
    const queue = [root];
    for (const key of await this.#marks.keys(options)) {
      const digest = digestOfKey(INNER, key);
      if (digest && !digest.equals(root) && spool.get(digest)) queue.push(digest);
    }
    const met = new Set(queue.map(({ hex }) => hex));
    await drain(queue, async (digest) => {
      if (await this.#has(innerKey(digest), options)) return;
      const directory = spool.get(digest)!;
      const children = childrenOf(directory);
      const { length } = encodeDirectory(directory).bytes;
      absent.set(digest.hex, { digest, length, children, parents: [], waitsFor: 0 });
      for (const child of children) {
        if (met.has(child.hex)) continue;
        met.add(child.hex);
        queue.push(child);
      }
    });
    return absent;
  }

  async #putInner(
    root: B3Digest,
    { digest, length }: Upload,
    spool: ClosureSpool,
    options?: AbortOptions,
  ): Promise<void> {
    await this.#budget.take(length, options);
    try {
      const data = Buffer.concat([root.bytes, encodeDirectory(spool.get(digest)!).bytes]);
      await this.#store.put(innerKey(digest), data, options);
      await this.#marks.clear(innerKey(digest), options);
    } finally {
      this.#budget.release(length);
    }
  }

  async #putTree(root: B3Digest, spool: ClosureSpool, options?: AbortOptions): Promise<void> {
    await using upload = this.#store.openUpload(treeKey(root), options);
    for await (const data of encodeTree(spool.rootFirst(root))) await upload.write(data);
    await upload.close();
    await this.#marks.clear(treeKey(root), options);
  }

  async #has(key: string, options?: AbortOptions): Promise<boolean> {
    if (await this.#marks.has(key, options)) return false;
    return (await this.#store.head(key, options)) !== undefined;
  }

  /** The root of a tree; `undefined` if there is none of that digest. */
  async #getRoot(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    try {
      for await (const directory of this.#readTree(digest, options)) return directory;
    } catch (error) {
      if (!isDataLoss(error)) throw error;
    }
    return undefined;
  }

  /** A directory that is an object of its own; `undefined` if there is none of that digest. */
  async #getInner(digest: B3Digest, options?: AbortOptions): Promise<InnerDirectory | undefined> {
    const key = innerKey(digest);
    const object = await this.#store.get(key, { signal: options?.signal });
    if (object === undefined) return undefined;
    const bytes = await collectAtMost(object, B3Digest.LENGTH + MAX_MESSAGE_BYTES);
    try {
      if (bytes === undefined) throw new CastoreError("data_loss", "it is too long");
      const root = B3Digest.fromBytes(bytes.subarray(0, B3Digest.LENGTH));
      const directory = decodeDirectoryOf(digest, bytes.subarray(B3Digest.LENGTH));
      await this.#marks.clear(key, options);
      return { root, directory };
    } catch (error) {
      if (!isWrongData(error)) throw error;
      await this.#lose(key, error, options);
      return undefined;
    }
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
        if (!isDataLoss(error)) throw error;
      }
    }
    const get = async (digest: B3Digest) => {
      const found = spool.get(digest) ?? (await this.#getInner(digest, options))?.directory;
      if (found === undefined) await this.#marks.mark(innerKey(digest), options);
      return found;
    };
    yield* traverseDirectory((digests) => getOneByOne({ get }, digests), digest, options);
  }

  /** Reads a tree; nothing if there is none with that root. */
  async *#readTree(root: B3Digest, options?: AbortOptions): AsyncGenerator<Directory> {
    const key = treeKey(root);
    const object = await this.#store.get(key, { signal: options?.signal });
    if (object === undefined) return;
    const validator = new RootToLeavesValidator(root);
    try {
      for await (const directory of decodeTree(object, options)) {
        validator.add(encodeDirectory(directory));
        options?.signal?.throwIfAborted();
        yield directory;
      }
      validator.finish();
    } catch (error) {
      if (!isWrongData(error)) throw error;
      throw await this.#lose(key, error, options);
    }
    await this.#marks.clear(key, options);
  }

  /** Notes that an object cannot be read, so that it is put again with its tree. */
  async #lose(key: string, cause: Error, options?: AbortOptions): Promise<CastoreError> {
    const message = `Cannot read object "${key}" in ${this.#store.name}: ${cause.message}`;
    this.#onCorrupt(message);
    await this.#marks.mark(key, options);
    return new CastoreError("data_loss", message, { cause });
  }
}

/** A directory, and the root of a tree that it is in. */
interface InnerDirectory {
  readonly root: B3Digest;
  readonly directory: Directory;
}

function isDataLoss(error: unknown): boolean {
  return error instanceof CastoreError && error.code === "data_loss";
}

/** Whether parsing or checking threw it, for bytes that are not those that were stored. */
function isWrongData(error: unknown): error is CastoreError {
  return isDataLoss(error) || (error instanceof CastoreError && error.code === "invalid_argument");
}

/** Makes a request for each item of a queue, to which requests add more, many at the same time. */
async function drain<T>(queue: T[], request: (item: T) => Promise<void>): Promise<void> {
  const running = new Set<Promise<void>>();
  try {
    while (queue.length > 0 || running.size > 0) {
      while (queue.length > 0 && running.size < REQUESTS) {
        const done = request(queue.pop()!).finally(() => running.delete(done));
        running.add(done);
      }
      await Promise.race(running);
    }
  } finally {
    await Promise.allSettled(running);
  }
}

function treeKey(root: B3Digest): string {
  return objectKey("dirs", root);
}

function innerKey(digest: B3Digest): string {
  return objectKey(INNER, digest);
}
