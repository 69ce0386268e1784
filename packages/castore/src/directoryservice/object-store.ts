import { pipeline } from "node:stream";
import { createZstdCompress } from "node:zlib";
import pLimit from "p-limit";
import { collectBytes, concatBytes, copyBytes } from "../bytes.ts";
import { decodeDirectory, decodeDirectoryOf, encodeDirectory } from "../convert.ts";
import { decompress } from "../decompress.ts";
import { B3Digest } from "../digest.ts";
import type { Directory } from "../directory.ts";
import { CastoreError } from "../errors.ts";
import { MAX_MESSAGE_BYTES } from "../limits.ts";
import { objectKey } from "../object-store/digest-key.ts";
import type { ObjectStore } from "../object-store/object-store.ts";
import type { AbortOptions } from "../options.ts";
import { ClosureSpool } from "./closure-spool.ts";
import type { DirectoryPutter, DirectoryService } from "./directory-service.ts";
import { RootToLeavesValidator } from "./order-validator.ts";
import { StagedTree } from "./staged-tree.ts";
import { traverseDirectory } from "./traverse.ts";

/** Options of {@link ObjectStoreDirectoryService}. */
export interface ObjectStoreDirectoryOptions {
  /** Where the objects are. Disposed of with the service. */
  store: ObjectStore;
  /** Is told of damaged objects that were met. Default: a process warning. */
  onCorrupt?: (message: string) => void;
}

/** How many objects are sent at the same time. */
const UPLOADS = 32;

/** A message in a tree has this many bytes before it, which say how long it is. */
const LENGTH_BYTES = 4;

/**
 * Keeps directories in an object store. `dirs/b3/<4 hex>/<hex>` is a tree, under the digest of its root, in the
 * layout of tvix: zstd of its directories from the root to the leaves, each after its length. So that
 * every other directory of the tree is found too, `dirs-inner/b3/<4 hex>/<hex>` is one of those: the digest
 * of the root, and the directory. See docs/formats.md.
 *
 * Below the root of a tree that tvix wrote, directories are only found through the root.
 */
export class ObjectStoreDirectoryService implements DirectoryService {
  readonly #store: ObjectStore;
  readonly #onCorrupt: (message: string) => void;

  constructor({ store, onCorrupt }: ObjectStoreDirectoryOptions) {
    this.#store = store;
    this.#onCorrupt = onCorrupt ?? ((message) => process.emitWarning(message));
  }

  async get(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    options?.signal?.throwIfAborted();
    // Which of the two it is cannot be told, and one after the other takes twice as long.
    const [root, inner] = await Promise.all([
      this.#first(digest, options),
      this.#inner(digest, options),
    ]);
    return root ?? inner?.directory;
  }

  async *getRecursive(digest: B3Digest, options?: AbortOptions): AsyncGenerator<Directory> {
    options?.signal?.throwIfAborted();
    const tree = await this.#openTree(digest, options);
    if (tree !== undefined) {
      yield* tree;
      return;
    }
    const inner = await this.#inner(digest, options);
    if (inner === undefined) return;
    const around = await this.#openTree(inner.root, options);
    if (around === undefined) {
      throw this.#lost(`directory ${digest}: the tree ${inner.root} that it is in is not there`);
    }
    using spool = new ClosureSpool();
    for await (const directory of around) spool.add(encodeDirectory(directory));
    yield* traverseDirectory(async (digest) => spool.get(digest), digest, options);
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

  /** Stores the tree first: what is found by a directory in it is whole. */
  async #commit(root: B3Digest, spool: ClosureSpool, options?: AbortOptions): Promise<void> {
    await using upload = this.#store.openUpload(treeKey(root), options);
    for await (const data of compressed(spool.rootFirst(root))) await upload.write(data);
    await upload.close();

    const limit = pLimit(UPLOADS);
    const uploads = new Set<Promise<unknown>>();
    try {
      for (const directory of spool.rootFirst(root)) {
        options?.signal?.throwIfAborted();
        const { digest, bytes } = encodeDirectory(directory);
        if (digest.equals(root)) continue;
        const data = Buffer.concat([root.bytes, bytes]);
        const put = limit(() => this.#store.put(innerKey(digest), data, options)).finally(() =>
          uploads.delete(put),
        );
        uploads.add(put);
        if (uploads.size >= UPLOADS) await Promise.race(uploads);
      }
      await Promise.all(uploads);
    } finally {
      await Promise.allSettled(uploads);
    }
  }

  /** The root of a tree; `undefined` if there is none of that digest. */
  async #first(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    try {
      for await (const directory of (await this.#openTree(digest, options)) ?? []) return directory;
    } catch (error) {
      if (!(error instanceof CastoreError) || error.code !== "data_loss") throw error;
    }
    return undefined;
  }

  /** A directory below the root of a tree, and that root; `undefined` if none is known. */
  async #inner(
    digest: B3Digest,
    options?: AbortOptions,
  ): Promise<{ root: B3Digest; directory: Directory } | undefined> {
    const object = await this.#store.get(innerKey(digest), options);
    if (object === undefined) return undefined;
    const bytes = await collectBytes(object);
    try {
      const root = B3Digest.fromBytes(bytes.subarray(0, B3Digest.LENGTH));
      return { root, directory: decodeDirectoryOf(digest, bytes.subarray(B3Digest.LENGTH)) };
    } catch (error) {
      if (!(error instanceof CastoreError)) throw error;
      this.#lost(`directory ${digest}: ${error.message}`);
      return undefined;
    }
  }

  /** Begins to read a tree; `undefined` if there is none with that root. */
  async #openTree(
    root: B3Digest,
    options?: AbortOptions,
  ): Promise<AsyncGenerator<Directory> | undefined> {
    const object = await this.#store.get(treeKey(root), { signal: options?.signal });
    return object && this.#readTree(root, object, options);
  }

  async *#readTree(
    root: B3Digest,
    object: AsyncIterable<Uint8Array>,
    options?: AbortOptions,
  ): AsyncGenerator<Directory> {
    const validator = new RootToLeavesValidator(root);
    try {
      for await (const message of messages(decompress(object, "zstd", options))) {
        const directory = decodeDirectory(message);
        validator.add(encodeDirectory(directory));
        options?.signal?.throwIfAborted();
        yield directory;
      }
      validator.finish();
    } catch (error) {
      const isData = error instanceof CastoreError && DATA_ERRORS.has(error.code);
      if (!isData) throw error;
      throw this.#lost(`tree ${root}: ${error.message}`, error);
    }
  }

  #lost(what: string, cause?: Error): CastoreError {
    const message = `Cannot read ${what} (in ${this.#store.name})`;
    this.#onCorrupt(message);
    return new CastoreError("data_loss", message, { cause });
  }
}

/** What parsing and checking throws for bytes that are not those that were stored. */
const DATA_ERRORS: ReadonlySet<string> = new Set(["invalid_argument", "data_loss"]);

function treeKey(root: B3Digest): string {
  return objectKey("dirs", root);
}

function innerKey(digest: B3Digest): string {
  return objectKey("dirs-inner", digest);
}

function compressed(directories: Iterable<Directory>): AsyncIterable<Uint8Array> {
  // What fails on the way is thrown where the last of them is read.
  return pipeline(delimited(directories), createZstdCompress(), () => undefined);
}

async function* delimited(directories: Iterable<Directory>): AsyncGenerator<Uint8Array> {
  for (const directory of directories) {
    const { bytes } = encodeDirectory(directory);
    const length = Buffer.alloc(LENGTH_BYTES);
    length.writeUInt32BE(bytes.length);
    yield Buffer.concat([length, bytes]);
  }
}

/** The messages of which each comes after its length. They belong to whoever iterates. */
async function* messages(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let rest = Buffer.alloc(0);
  let needed = LENGTH_BYTES;
  let isLength = true;
  const parts: Uint8Array[] = [];
  let have = 0;
  for await (const data of stream) {
    parts.push(data);
    have += data.length;
    if (have < needed) continue;
    rest = Buffer.from(concatBytes(parts.splice(0)));
    for (let at = 0; ; ) {
      if (rest.length - at < needed) {
        rest = rest.subarray(at);
        break;
      }
      if (isLength) {
        const length = rest.readUInt32BE(at);
        if (length > MAX_MESSAGE_BYTES) {
          throw new CastoreError("data_loss", `found a directory of ${length} bytes`);
        }
        at += LENGTH_BYTES;
        needed = length;
      } else {
        yield copyBytes(rest.subarray(at, at + needed));
        at += needed;
        needed = LENGTH_BYTES;
      }
      isLength = !isLength;
    }
    parts.push(rest);
    have = rest.length;
  }
  if (have > 0 || !isLength) throw new CastoreError("data_loss", "it breaks off");
}
