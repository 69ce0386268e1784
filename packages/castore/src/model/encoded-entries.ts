import { B3Digest } from "./digest.ts";
import type { DirectoryEntry } from "./directory.ts";
import { isSymlinkTarget, type Node, type SymlinkTarget } from "./node.ts";
import { isPathComponent, type PathComponent } from "./path.ts";

/** Tags of the fields of the message `Directory`: lists of nodes, by their type. */
export const LIST_TAGS = { directory: 0x0a, file: 0x12, symlink: 0x1a } as const;

/** Tags of the fields of nodes. The target of a symlink has the same as a digest. */
export const TAG = {
  name: 0x0a,
  digest: 0x12,
  target: 0x12,
  size: 0x18,
  executable: 0x20,
} as const;

const MAX_UINT64 = 2n ** 64n - 1n;
/** Longest encoding of a 64-bit number, and the longest of those that are added up as a number of JavaScript. */
const MAX_VARINT_BYTES = 10;
const MAX_SHORT_BYTES = 7;

/** Where the parts of an entry are in the encoding. */
export interface EntryRecord {
  readonly type: Node["type"];
  readonly nameStart: number;
  readonly nameEnd: number;
  /** The digest, or the target of a symlink. */
  readonly valueStart: number;
  readonly valueEnd: number;
  readonly size: bigint;
  readonly executable: boolean;
}

/**
 * The entries of a directory in its canonical encoding, each decoded when it is asked for: in memory, an entry takes four bytes
 * more than its encoding, in place of several objects.
 *
 * Format: Protocol Buffers, "Encoding", for the messages in castore.proto.
 */
export class EncodedEntries {
  /** The encoding. Must not be changed. */
  readonly bytes: Uint8Array;
  /** Where each entry begins, in the order of the entries. */
  readonly starts: Uint32Array;
  readonly #cursor: EntryCursor;

  /** Takes what {@link scan} found, which may have been moved to another thread. */
  constructor({ bytes, starts }: Pick<EncodedEntries, "bytes" | "starts">) {
    this.bytes = bytes;
    this.starts = starts;
    this.#cursor = new EntryCursor(bytes);
  }

  /**
   * Finds the entries of a directory, in the order of their names.
   *
   * @returns `undefined` unless it is the canonical encoding of a valid directory
   */
  static scan(bytes: Uint8Array): EncodedEntries | undefined {
    const starts = scanLists(bytes);
    return starts && new EncodedEntries({ bytes, starts });
  }

  /** How many entries there are. */
  get length(): number {
    return this.starts.length;
  }

  /** Returns where the parts of an entry are. */
  recordAt(index: number): EntryRecord {
    const { type, nameStart, nameEnd, valueStart, valueEnd, size, executable } = this.#at(index);
    return { type, nameStart, nameEnd, valueStart, valueEnd, size: BigInt(size), executable };
  }

  /** Returns the type of an entry. */
  typeAt(index: number): Node["type"] {
    return typeOf(this.bytes[this.starts[index]!]!)!;
  }

  /** Returns an entry, whose name, digest and target are parts of the encoding. */
  at(index: number): DirectoryEntry {
    const { type, nameStart, nameEnd, valueStart, valueEnd, size, executable } = this.#at(index);
    const name = this.bytes.subarray(nameStart, nameEnd) as PathComponent;
    const value = this.bytes.subarray(valueStart, valueEnd);
    if (type === "symlink") return { name, node: { type, target: value as SymlinkTarget } };
    const digest = B3Digest.fromBytes(value);
    if (type === "directory") return { name, node: { type, digest, size: BigInt(size) } };
    return { name, node: { type, digest, size: BigInt(size), executable } };
  }

  /** The entries in order. None of them is kept. */
  *[Symbol.iterator](): Generator<DirectoryEntry, undefined> {
    for (let i = 0; i < this.length; i++) yield this.at(i);
  }

  /** Returns the index of a name; -1 if there is none. */
  indexOf(name: Uint8Array): number {
    let [low, high] = [0, this.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { nameStart, nameEnd } = this.#at(middle);
      const order = compareParts(name, 0, name.length, this.bytes, nameStart, nameEnd);
      if (order === 0) return middle;
      if (order < 0) high = middle;
      else low = middle + 1;
    }
    return -1;
  }

  /** Reads an entry, which was scanned before. It is valid until the next one is read. */
  #at(index: number): EntryCursor {
    this.#cursor.read(this.starts[index]!);
    return this.#cursor;
  }
}

/** Returns where entries begin, sorted by name; `undefined` if they are no valid directory. */
function scanLists(bytes: Uint8Array): Uint32Array | undefined {
  const lists: Record<Node["type"], number[]> = { directory: [], file: [], symlink: [] };
  let total = 0n;
  let count = 0;
  let lastTag = 0;
  let [lastStart, lastEnd] = [0, 0];
  const cursor = new EntryCursor(bytes);
  for (let at = 0; at < bytes.length; at = cursor.end) {
    const tag = bytes[at]!;
    if (!cursor.read(at) || tag < lastTag) return undefined;
    const { type, nameStart, nameEnd } = cursor;
    if (!isPathComponent(bytes, nameStart, nameEnd)) return undefined;
    if (type === "symlink") {
      const target = bytes.subarray(cursor.valueStart, cursor.valueEnd);
      if (!isSymlinkTarget(target)) return undefined;
    }
    const isSorted =
      tag !== lastTag || compareParts(bytes, lastStart, lastEnd, bytes, nameStart, nameEnd) < 0;
    if (!isSorted) return undefined;
    if (type === "directory") total += BigInt(cursor.size);
    count += 1;
    lists[type].push(at);
    lastTag = tag;
    lastStart = nameStart;
    lastEnd = nameEnd;
  }
  if (total + 2n * BigInt(count) > MAX_UINT64) return undefined;
  const { directory, file, symlink } = lists;
  const begun = merge(bytes, directory, file);
  const starts = begun && merge(bytes, begun, symlink);
  return starts && Uint32Array.from(starts);
}

/** Merges entries that are sorted by name; `undefined` if a name is in both lists. */
function merge(
  bytes: Uint8Array,
  one: readonly number[],
  other: readonly number[],
): readonly number[] | undefined {
  if (one.length === 0 || other.length === 0) return one.length > 0 ? one : other;
  const merged: number[] = [];
  const [a, b] = [new EntryCursor(bytes), new EntryCursor(bytes)];
  let [i, j] = [0, 0];
  a.read(one[i]!);
  b.read(other[j]!);
  while (i < one.length && j < other.length) {
    const order = compareParts(bytes, a.nameStart, a.nameEnd, bytes, b.nameStart, b.nameEnd);
    if (order === 0) return undefined;
    if (order < 0) {
      merged.push(one[i++]!);
      if (i < one.length) a.read(one[i]!);
    } else {
      merged.push(other[j++]!);
      if (j < other.length) b.read(other[j]!);
    }
  }
  for (; i < one.length; i++) merged.push(one[i]!);
  for (; j < other.length; j++) merged.push(other[j]!);
  return merged;
}

/** Compares parts of byte strings. Names are short: a loop is done before a function of Node.js has looked at its arguments. */
export function compareParts(
  a: Uint8Array,
  aStart: number,
  aEnd: number,
  b: Uint8Array,
  bStart: number,
  bEnd: number,
): number {
  const length = Math.min(aEnd - aStart, bEnd - bStart);
  for (let i = 0; i < length; i++) {
    const difference = a[aStart + i]! - b[bStart + i]!;
    if (difference !== 0) return difference;
  }
  return aEnd - aStart - (bEnd - bStart);
}

function typeOf(tag: number): Node["type"] | undefined {
  if (tag === LIST_TAGS.file) return "file";
  if (tag === LIST_TAGS.directory) return "directory";
  return tag === LIST_TAGS.symlink ? "symlink" : undefined;
}

/** Reads entries one after the other, without making anything for each, and refuses whatever is not canonical. */
class EntryCursor {
  readonly #bytes: Uint8Array;
  /** The entry that was read last, as an {@link EntryRecord}. */
  type: Node["type"] = "file";
  nameStart = 0;
  nameEnd = 0;
  valueStart = 0;
  valueEnd = 0;
  size: number | bigint = 0;
  executable = false;
  /** Where it ends. */
  end = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Reads the entry that begins at an offset. Returns whether there is one in canonical form. */
  read(start: number): boolean {
    const bytes = this.#bytes;
    const type = typeOf(bytes[start]!);
    this.end = start + 1;
    const length = this.#length();
    const end = this.end + length;
    if (type === undefined || length < 0 || end > bytes.length) return false;
    this.type = type;
    if (!this.#field(TAG.name, end)) return false;
    this.nameStart = this.valueStart;
    this.nameEnd = this.end;
    if (!this.#field(type === "symlink" ? TAG.target : TAG.digest, end)) return false;
    this.valueEnd = this.end;
    this.size = 0;
    this.executable = false;
    if (type !== "symlink") {
      if (this.valueEnd - this.valueStart !== B3Digest.LENGTH) return false;
      if (this.end < end && bytes[this.end] === TAG.size) {
        this.end += 1;
        const size = this.#number();
        if (size === undefined || size === 0) return false; // a default is left out
        this.size = size;
      }
    }
    if (type === "file" && this.end < end && bytes[this.end] === TAG.executable) {
      this.executable = bytes[this.end + 1] === 1;
      if (!this.executable) return false;
      this.end += 2;
    }
    return this.end === end;
  }

  /** Reads a field of bytes, whose start is noted as that of the value. Returns whether it is there. */
  #field(tag: number, end: number): boolean {
    if (this.#bytes[this.end++] !== tag) return false;
    const length = this.#length();
    if (length < 0 || this.end + length > end) return false;
    this.valueStart = this.end;
    this.end += length;
    return true;
  }

  /** Reads a length, which is below 2^32 in what fits into memory; -1 if there is none. */
  #length(): number {
    const length = this.#number();
    return typeof length !== "number" || length > 0xffff_ffff ? -1 : length;
  }

  /** Reads a number, a `bigint` where it takes more than seven bytes; `undefined` unless it is in its shortest form. */
  #number(): number | bigint | undefined {
    let value = 0;
    for (let [i, factor] = [0, 1]; i < MAX_SHORT_BYTES; i++, factor *= 128) {
      const byte = this.#bytes[this.end++];
      if (byte === undefined) return undefined;
      if (byte < 128) return byte === 0 && i > 0 ? undefined : value + byte * factor;
      value += (byte - 128) * factor;
    }
    return this.#longNumber(BigInt(value));
  }

  /** Reads the rest of a number of more than seven bytes. */
  #longNumber(first: bigint): bigint | undefined {
    let value = first;
    for (let i = MAX_SHORT_BYTES; i < MAX_VARINT_BYTES; i++) {
      const byte = this.#bytes[this.end++];
      if (byte === undefined) return undefined;
      value |= BigInt(byte & 0x7f) << BigInt(7 * i);
      if (byte >= 0x80) continue;
      return byte === 0 || value > MAX_UINT64 ? undefined : value;
    }
    return undefined;
  }
}
