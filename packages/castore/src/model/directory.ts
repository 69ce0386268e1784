import { compareBytes, quoteBytes } from "../bytes/byte-string.ts";
import type { B3Digest } from "./digest.ts";
import { EncodedEntries } from "./encoded-entries.ts";
import { CastoreError } from "./errors.ts";
import type { DirectoryNode, Node } from "./node.ts";
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
  /** How many entries there are. */
  readonly length: number;
  /**
   * Twice the number of entries, plus the sizes that they state for the sub-directories: the number that today's
   * programs in Rust write. It stands in the directory above, so digests depend on it.
   */
  readonly size: bigint;

  #entries: readonly DirectoryEntry[] | undefined;
  readonly #encoded: EncodedEntries | undefined;
  readonly #encoding: DirectoryEncoding | undefined;

  private constructor(
    entries: readonly DirectoryEntry[] | EncodedEntries,
    size: bigint,
    encoding?: DirectoryEncoding,
  ) {
    this.length = entries.length;
    this.size = size;
    const isEncoded = entries instanceof EncodedEntries;
    this.#entries = isEncoded ? undefined : entries;
    this.#encoded = isEncoded ? entries : undefined;
    this.#encoding = encoding;
  }

  /**
   * The entries, sorted bytewise by name, each name once. Those of a directory that was decoded are made when they are asked
   * for, and kept: a large one takes much less memory until then.
   */
  get entries(): readonly DirectoryEntry[] {
    const encoded = this.#encoded;
    this.#entries ??= Array.from({ length: this.length }, (_, i) => encoded!.at(i));
    return this.#entries;
  }

  /** The entries in the encoding that they were decoded from; `undefined` of a directory that was made otherwise. */
  get encodedEntries(): EncodedEntries | undefined {
    return this.#encoded;
  }

  /** The encoding that the directory was decoded from, if it was kept, so that nobody encodes it again. */
  get encoding(): DirectoryEncoding | undefined {
    return this.#encoding;
  }

  /** Returns the same directory with the encoding that it was decoded from. */
  withEncoding(encoding: DirectoryEncoding): Directory {
    return new Directory(this.#encoded ?? this.entries, this.size, encoding);
  }

  /**
   * Decodes a directory.
   *
   * @returns `undefined` unless it is the canonical encoding of a valid directory
   */
  static fromEncoding(bytes: Uint8Array): Directory | undefined {
    const entries = EncodedEntries.scan(bytes);
    if (entries === undefined) return undefined;
    let size = 2n * BigInt(entries.length);
    for (const { node } of directoriesOf(entries)) size += node.size;
    return new Directory(entries, size);
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
    return this.size - BigInt(this.length);
  }

  /** Whether a directory that refers to this one may state that size for it: either way of counting. */
  acceptsSize(size: bigint): boolean {
    return size === this.size || size === this.sizeOnce;
  }

  /** The sub-directories, sorted by name. */
  *directories(): Generator<DirectoryEntry & { readonly node: DirectoryNode }> {
    if (this.#entries === undefined) yield* directoriesOf(this.#encoded!);
    else for (const entry of this.#entries) if (isDirectory(entry)) yield entry;
  }

  /** The node of that name; `undefined` if there is none. */
  get(name: PathComponent): Node | undefined {
    const encoded = this.#encoded;
    if (encoded !== undefined) {
      const index = encoded.indexOf(name);
      return index < 0 ? undefined : encoded.at(index).node;
    }
    const entries = this.entries;
    let low = 0;
    let high = entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const entry = entries[middle]!;
      const order = compareBytes(entry.name, name);
      if (order === 0) return entry.node;
      if (order < 0) low = middle + 1;
      else high = middle;
    }
    return undefined;
  }
}

function* directoriesOf(
  entries: EncodedEntries,
): Generator<DirectoryEntry & { readonly node: DirectoryNode }> {
  for (let i = 0; i < entries.length; i++) {
    if (entries.typeAt(i) !== "directory") continue;
    const entry = entries.at(i);
    if (isDirectory(entry)) yield entry;
  }
}

function isDirectory(
  entry: DirectoryEntry,
): entry is DirectoryEntry & { readonly node: DirectoryNode } {
  return entry.node.type === "directory";
}
