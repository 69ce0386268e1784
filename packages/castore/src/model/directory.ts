import type { B3Digest } from "./digest.ts";
import { DirectoryEncoder } from "./directory-encoder.ts";
import { EncodedEntries } from "./encoded-entries.ts";
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

/** The entries of one folder. Immutable, valid by construction. */
export class Directory {
  /** How many entries there are. */
  readonly length: number;
  /**
   * Twice the number of entries, plus the sizes that they state for the sub-directories: the number that today's
   * programs in Rust write. It stands in the directory above, so digests depend on it.
   */
  readonly size: bigint;

  /** The entries in the canonical encoding. */
  readonly encodedEntries: EncodedEntries;

  #entries: readonly DirectoryEntry[] | undefined;
  readonly #encoding: DirectoryEncoding | undefined;

  private constructor(entries: EncodedEntries, size: bigint, encoding?: DirectoryEncoding) {
    this.length = entries.length;
    this.size = size;
    this.encodedEntries = entries;
    this.#encoding = encoding;
  }

  /**
   * The entries, sorted bytewise by name, each name once. They are made when they are asked for, and kept: a large directory
   * takes much less memory until then.
   */
  get entries(): readonly DirectoryEntry[] {
    const encoded = this.encodedEntries;
    this.#entries ??= Array.from({ length: this.length }, (_, i) => encoded.at(i));
    return this.#entries;
  }

  /** The encoding that the directory was decoded from, if it was kept, so that nobody encodes it again. */
  get encoding(): DirectoryEncoding | undefined {
    return this.#encoding;
  }

  /** Returns the same directory with the encoding that it was decoded from. */
  withEncoding(encoding: DirectoryEncoding): Directory {
    return new Directory(this.encodedEntries, this.size, encoding);
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
   * Makes a directory of entries in any order, or of those that were encoded.
   *
   * @throws CastoreError `invalid_argument` if a name occurs twice or the size exceeds 64 bits
   */
  static from(entries: Iterable<DirectoryEntry> | DirectoryEncoder): Directory {
    const encoder = entries instanceof DirectoryEncoder ? entries : encode(entries);
    const { entries: encoded, size } = encoder.finish();
    return new Directory(encoded, size);
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
  directories(): Generator<DirectoryEntry & { readonly node: DirectoryNode }> {
    return directoriesOf(this.encodedEntries);
  }

  /** The node of that name; `undefined` if there is none. */
  get(name: PathComponent): Node | undefined {
    const index = this.encodedEntries.indexOf(name);
    return index < 0 ? undefined : this.encodedEntries.at(index).node;
  }
}

function encode(entries: Iterable<DirectoryEntry>): DirectoryEncoder {
  const encoder = new DirectoryEncoder();
  for (const { name, node } of entries) encoder.push(name, node);
  return encoder;
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
