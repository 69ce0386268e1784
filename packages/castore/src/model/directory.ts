import { compareBytes, quoteBytes } from "../bytes/byte-string.ts";
import type { B3Digest } from "./digest.ts";
import { CastoreError } from "./errors.ts";
import type { Node } from "./node.ts";
import type { PathComponent } from "./path.ts";

/** A name in a directory and what it stands for. */
export interface DirectoryEntry {
  readonly name: PathComponent;
  readonly node: Node;
}

/** An encoded directory. */
export interface DirectoryEncoding {
  /** Must not be changed. */
  readonly bytes: Uint8Array;
  /** The digest of the bytes. */
  readonly digest: B3Digest;
}

const MAX_UINT64 = 2n ** 64n - 1n;

/** The entries of one folder. Immutable, valid by construction. */
export class Directory {
  /** The entries, sorted bytewise by name, each name once. */
  readonly entries: readonly DirectoryEntry[];
  /**
   * Twice the number of entries, plus the sizes that they state for the sub-directories: the number that today's
   * programs in Rust write. It stands in the directory above, so digests depend on it.
   */
  readonly size: bigint;

  readonly #encoding: DirectoryEncoding | undefined;

  private constructor(
    entries: readonly DirectoryEntry[],
    size: bigint,
    encoding?: DirectoryEncoding,
  ) {
    this.entries = entries;
    this.size = size;
    this.#encoding = encoding;
  }

  /** The encoding that the directory was decoded from, if it was kept, so that nobody encodes it again. */
  get encoding(): DirectoryEncoding | undefined {
    return this.#encoding;
  }

  /** Returns the same directory with the encoding that it was decoded from. */
  withEncoding(encoding: DirectoryEncoding): Directory {
    return new Directory(this.entries, this.size, encoding);
  }

  /**
   * Makes a directory of entries in any order.
   *
   * @throws CastoreError `invalid_argument` if a name occurs twice or the size exceeds 64 bits
   */
  static from(entries: Iterable<DirectoryEntry>): Directory {
    const sorted = [...entries].sort((a, b) => compareBytes(a.name, b.name));
    let size = 2n * BigInt(sorted.length);
    for (let i = 0; i < sorted.length; i++) {
      const { name, node } = sorted[i]!;
      if (i > 0 && compareBytes(sorted[i - 1]!.name, name) === 0) {
        throw new CastoreError(
          "invalid_argument",
          `Cannot build directory: name ${quoteBytes(name)} occurs twice`,
        );
      }
      if (node.type === "directory") size += node.size;
    }
    if (size > MAX_UINT64) {
      throw new CastoreError(
        "invalid_argument",
        `Cannot build directory: its size ${size} exceeds 64 bits`,
      );
    }
    return new Directory(sorted, size);
  }

  /**
   * {@link size} with each entry counted once, as programs of the protocol in Go count, and those in Rust did before
   * August 2024.
   */
  get sizeOnce(): bigint {
    return this.size - BigInt(this.entries.length);
  }

  /** Whether a directory that refers to this one may state that size for it: either way of counting. */
  acceptsSize(size: bigint): boolean {
    return size === this.size || size === this.sizeOnce;
  }

  /** The node of that name; `undefined` if there is none. */
  get(name: PathComponent): Node | undefined {
    let low = 0;
    let high = this.entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const entry = this.entries[middle]!;
      const order = compareBytes(entry.name, name);
      if (order === 0) return entry.node;
      if (order < 0) low = middle + 1;
      else high = middle;
    }
    return undefined;
  }
}
