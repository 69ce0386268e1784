import type { AbortOptions, Node } from "@tvix/castore";
import { StoreError } from "../errors.ts";
import { type NarSources, renderNar } from "./renderer.ts";
import { NarSizes } from "./sizes.ts";

/** Which part of a NAR to read. */
export interface NarRange extends AbortOptions {
  /** How many bytes come before it. Default: 0. At or past the end, nothing is read. */
  offset?: number;
  /** How many bytes to read at most. Default: to the end. */
  length?: number;
}

/**
 * The NAR of a stored tree, of which any part can be read. What comes before it is neither read nor rendered: on the way
 * to it, the directories that it is in are looked up. Of each directory of the tree, some 200 bytes are held.
 */
export class SeekableNar {
  readonly #root: Node;
  readonly #sources: NarSources;
  readonly #sizes: NarSizes;

  private constructor(root: Node, sources: NarSources, sizes: NarSizes) {
    this.#root = root;
    this.#sources = sources;
    this.#sizes = sizes;
  }

  /**
   * Looks at the directories of the tree.
   *
   * @throws StoreError `not_found` if the root is missing, `invalid_argument` if the NAR would be longer than
   *   2^53 bytes; whatever the directory service throws
   */
  static async open(root: Node, sources: NarSources, options?: AbortOptions): Promise<SeekableNar> {
    const sizes = await NarSizes.of(root, sources.directoryService, options);
    return new SeekableNar(root, sources, sizes);
  }

  /** Length of the NAR in bytes. */
  get size(): number {
    return this.#sizes.total;
  }

  /**
   * Reads a part of the NAR, in pieces that are lent until the next one is asked for. To be iterated once.
   *
   * @throws StoreError `invalid_argument` for an offset or length that is no natural number; what
   *   {@link renderNar} throws, from iterating
   */
  read({ offset = 0, length = this.size, signal }: NarRange = {}): AsyncIterable<Uint8Array> {
    for (const [name, value] of Object.entries({ offset, length })) {
      if (Number.isSafeInteger(value) && value >= 0) continue;
      const reason = `expected ${name} to be a non-negative safe integer, found ${value}`;
      throw new StoreError("invalid_argument", `Cannot read from a NAR: ${reason}`);
    }
    const end = Math.min(offset + length, this.size);
    const part = { sizes: this.#sizes, start: offset, end };
    return renderNar(this.#root, this.#sources, { part, signal });
  }
}
