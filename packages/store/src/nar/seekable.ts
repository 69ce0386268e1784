import type { AbortOptions, BlobService, Node } from "@tvix/castore";
import { StoreError } from "../errors.ts";
import { type NarSources, type RenderOptions, renderPart } from "./renderer.ts";
import { openTree } from "./shared-trees.ts";
import { NarSizes } from "./sizes.ts";
import type { Tree } from "./tree-reader.ts";

/** Which part of a NAR to read. */
export interface NarRange extends RenderOptions {
  /** How many bytes come before it. Default: 0. At or past the end, nothing is read. */
  offset?: number;
  /** How many bytes to read at most. Default: to the end. */
  length?: number;
}

/**
 * Reads any part of the NAR of a stored tree, for several readers at the same time. Files before a part are not read.
 * The directories of the tree are held until it is disposed of, beyond a few megabytes in a temporary file.
 */
export class SeekableNar implements AsyncDisposable {
  readonly #root: Node;
  readonly #blobService: BlobService;
  readonly #tree: Tree;
  readonly #sizes: NarSizes;

  private constructor(root: Node, blobService: BlobService, tree: Tree, sizes: NarSizes) {
    this.#root = root;
    this.#blobService = blobService;
    this.#tree = tree;
    this.#sizes = sizes;
  }

  /**
   * Reads the directories of the tree, by one `getRecursive`.
   *
   * @throws StoreError `not_found` if the root is missing, `invalid_argument` if the NAR would be longer than
   *   2^53 bytes; whatever the directory service throws
   */
  static async open(root: Node, sources: NarSources, options?: AbortOptions): Promise<SeekableNar> {
    options?.signal?.throwIfAborted();
    const tree = openTree(root, sources, options);
    try {
      const sizes = await NarSizes.of(root, tree);
      await tree.readAll();
      return new SeekableNar(root, sources.blobService, tree, sizes);
    } catch (error) {
      await tree[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Length of the NAR in bytes. */
  get size(): number {
    return this.#sizes.total;
  }

  /**
   * Reads a part of the NAR, in pieces that are valid until the next one is requested. To be iterated once.
   *
   * @throws StoreError `invalid_argument` for an offset or length that is not a non-negative integer; from iterating,
   *   whatever `renderNar` throws
   */
  read({ offset = 0, length = this.size, ...options }: NarRange = {}): AsyncIterable<Uint8Array> {
    for (const [name, value] of Object.entries({ offset, length })) {
      if (Number.isSafeInteger(value) && value >= 0) continue;
      const reason = `expected ${name} to be a non-negative safe integer, found ${value}`;
      throw new StoreError("invalid_argument", `Cannot read from a NAR: ${reason}`);
    }
    const end = Math.min(offset + length, this.size);
    const part = { sizes: this.#sizes, start: offset, end };
    const sources = { tree: this.#tree, blobService: this.#blobService };
    return renderPart(this.#root, sources, { ...options, part });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#sizes[Symbol.dispose]();
    await this.#tree[Symbol.asyncDispose]();
  }
}
