import {
  type AbortOptions,
  type B3Digest,
  type Directory,
  type DirectoryService,
  decodeDirectoryOf,
  type EncodedDirectory,
  encodeDirectory,
  type Node,
} from "@tvix/castore";
import { SpillingMap } from "./spilling-map.ts";

/** How many bytes of directories are kept in memory, encoded: decoded, they take about ten times as much. */
const MAX_BYTES_IN_MEMORY = 2 * 1024 * 1024;

/** The directories of a tree. */
export interface Tree extends AsyncDisposable {
  /**
   * Returns a directory of the tree; `undefined` if the tree has none of that digest.
   *
   * @throws whatever the directory service throws: `data_loss` if a directory below the root is missing
   */
  get(digest: B3Digest): Promise<Directory | undefined>;
  /** Reads the rest of the tree, which shows whether it is whole. */
  readAll(): Promise<void>;
}

/**
 * Reads the directories of one tree by a single `getRecursive` of its root, and returns them in any order. The stream
 * is read only as far as a lookup needs. Directories that were read are kept, beyond a few megabytes in a temporary file.
 */
export class TreeReader implements Tree {
  readonly #stream: AsyncIterator<Directory> | undefined;
  readonly #found: SpillingMap<Uint8Array>;
  /** The read that is under way, or that failed. */
  #reading: Promise<EncodedDirectory | undefined> | undefined;
  #isAtEnd = false;

  /** Reads nothing yet. A root that is no directory has no directories. */
  constructor(
    root: Node,
    directoryService: Pick<DirectoryService, "getRecursive">,
    options?: AbortOptions,
  ) {
    const asIs = (bytes: Uint8Array) => bytes;
    this.#found = new SpillingMap({ encode: asIs, decode: asIs }, MAX_BYTES_IN_MEMORY);
    if (root.type !== "directory") return;
    const stream = directoryService.getRecursive(root.digest, options);
    this.#stream = stream[Symbol.asyncIterator]();
  }

  async get(digest: B3Digest): Promise<Directory | undefined> {
    for (;;) {
      const found = this.#found.get(digest);
      if (found !== undefined) return decodeDirectoryOf(digest, found);
      const next = await this.#next();
      if (next === undefined) return undefined;
      if (next.digest.equals(digest)) return next.directory;
    }
  }

  async readAll(): Promise<void> {
    while ((await this.#next()) !== undefined);
  }

  /** Closes the stream and the temporary file. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      if (!this.#isAtEnd) await this.#stream?.return?.();
    } finally {
      this.#found[Symbol.dispose]();
    }
  }

  /** Reads the next directory, once for all who ask meanwhile; `undefined` at the end. */
  #next(): Promise<EncodedDirectory | undefined> {
    if (this.#reading === undefined) {
      const reading = this.#readNext();
      this.#reading = reading;
      reading.then(
        () => {
          this.#reading = undefined;
        },
        () => undefined, // whoever asks again is told the same
      );
    }
    return this.#reading;
  }

  async #readNext(): Promise<EncodedDirectory | undefined> {
    if (this.#isAtEnd || this.#stream === undefined) return undefined;
    const { done, value } = await this.#stream.next();
    if (done) {
      this.#isAtEnd = true;
      return undefined;
    }
    const encoded = encodeDirectory(value);
    await this.#found.add(encoded.digest, encoded.bytes);
    return encoded;
  }
}
