import { asBuffer } from "../bytes/byte-string.ts";
import { B3Digest } from "./digest.ts";
import type { DirectoryEntry } from "./directory.ts";
import { isSymlinkTarget, type Node, type SymlinkTarget } from "./node.ts";
import { isPathComponent, type PathComponent } from "./path.ts";

/** Tags of the fields of the message `Directory`: lists of nodes, by their type. */
const LIST_TAGS = { directory: 0x0a, file: 0x12, symlink: 0x1a } as const;

/** Tags of the fields of nodes. The target of a symlink has the same as a digest. */
const TAG = { name: 0x0a, digest: 0x12, target: 0x12, size: 0x18, executable: 0x20 } as const;

const MAX_UINT64 = 2n ** 64n - 1n;
/** Longest encoding of a 64-bit number. */
const MAX_VARINT_BYTES = 10;

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
  readonly #buffer: Buffer;

  /** Takes what {@link scan} found, which may have been moved to another thread. */
  constructor({ bytes, starts }: Pick<EncodedEntries, "bytes" | "starts">) {
    this.bytes = bytes;
    this.starts = starts;
    this.#buffer = asBuffer(bytes);
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
    return recordFrom(this.#buffer, this.starts[index]!);
  }

  /** Returns the type of an entry. */
  typeAt(index: number): Node["type"] {
    return typeOf(this.#buffer[this.starts[index]!]!)!;
  }

  /** Returns an entry, whose name, digest and target are parts of the encoding. */
  at(index: number): DirectoryEntry {
    const { type, nameStart, nameEnd, valueStart, valueEnd, size, executable } =
      this.recordAt(index);
    const name = this.bytes.subarray(nameStart, nameEnd) as PathComponent;
    const value = this.bytes.subarray(valueStart, valueEnd);
    if (type === "symlink") return { name, node: { type, target: value as SymlinkTarget } };
    const digest = B3Digest.fromBytes(value);
    const node = type === "file" ? { type, digest, size, executable } : { type, digest, size };
    return { name, node };
  }

  /** Returns the index of a name; -1 if there is none. */
  indexOf(name: Uint8Array): number {
    let [low, high] = [0, this.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { nameStart, nameEnd } = this.recordAt(middle);
      const order = this.#buffer.compare(name, 0, name.length, nameStart, nameEnd);
      if (order === 0) return middle;
      if (order < 0) low = middle + 1;
      else high = middle;
    }
    return -1;
  }
}

/** Returns where entries begin, sorted by name; `undefined` if they are no valid directory. */
function scanLists(bytes: Uint8Array): Uint32Array | undefined {
  const buffer = asBuffer(bytes);
  const lists: Record<Node["type"], number[]> = { directory: [], file: [], symlink: [] };
  let total = 0n;
  let count = 0n;
  let lastTag = 0;
  let last: EntryRecord | undefined;
  for (let at = 0; at < buffer.length; ) {
    const tag = buffer[at]!;
    const reader = new RecordReader(buffer, at);
    const record = reader.record();
    if (record === undefined || tag < lastTag) return undefined;
    const { type, nameStart, nameEnd, valueStart, valueEnd, size } = record;
    if (!isPathComponent(buffer.subarray(nameStart, nameEnd))) return undefined;
    if (type === "symlink" && !isSymlinkTarget(buffer.subarray(valueStart, valueEnd))) {
      return undefined;
    }
    if (tag === lastTag && compareNames(buffer, last!, record) >= 0) return undefined;
    if (type === "directory") total += size;
    count += 1n;
    lists[type].push(at);
    lastTag = tag;
    last = record;
    at = reader.end;
  }
  if (total + 2n * count > MAX_UINT64) return undefined;
  const { directory, file, symlink } = lists;
  const begun = merge(buffer, directory, file);
  const starts = begun && merge(buffer, begun, symlink);
  return starts && Uint32Array.from(starts);
}

/** Merges entries that are sorted by name; `undefined` if a name is in both lists. */
function merge(
  buffer: Buffer,
  one: readonly number[],
  other: readonly number[],
): readonly number[] | undefined {
  if (one.length === 0 || other.length === 0) return one.length > 0 ? one : other;
  const merged: number[] = [];
  let [i, j] = [0, 0];
  while (i < one.length && j < other.length) {
    const order = compareNames(buffer, recordFrom(buffer, one[i]!), recordFrom(buffer, other[j]!));
    if (order === 0) return undefined;
    merged.push(order < 0 ? one[i++]! : other[j++]!);
  }
  for (; i < one.length; i++) merged.push(one[i]!);
  for (; j < other.length; j++) merged.push(other[j]!);
  return merged;
}

function compareNames(buffer: Buffer, a: EntryRecord, b: EntryRecord): number {
  return buffer.compare(buffer, b.nameStart, b.nameEnd, a.nameStart, a.nameEnd);
}

/** Returns an entry that was scanned before. */
function recordFrom(buffer: Buffer, start: number): EntryRecord {
  return new RecordReader(buffer, start).record()!;
}

function typeOf(tag: number): Node["type"] | undefined {
  if (tag === LIST_TAGS.file) return "file";
  if (tag === LIST_TAGS.directory) return "directory";
  return tag === LIST_TAGS.symlink ? "symlink" : undefined;
}

/** Reads one entry, and refuses whatever is not canonical. */
class RecordReader {
  readonly #buffer: Buffer;
  #at: number;

  constructor(buffer: Buffer, start: number) {
    this.#buffer = buffer;
    this.#at = start;
  }

  /** Where the entry ends, once it has been read. */
  get end(): number {
    return this.#at;
  }

  /** Returns the entry; `undefined` if there is none in canonical form. */
  record(): EntryRecord | undefined {
    const type = typeOf(this.#buffer[this.#at++]!);
    const length = this.#length();
    if (type === undefined || length === undefined) return undefined;
    const end = this.#at + length;
    if (end > this.#buffer.length) return undefined;
    const name = this.#field(TAG.name, end);
    const value = this.#field(type === "symlink" ? TAG.target : TAG.digest, end);
    if (name === undefined || value === undefined) return undefined;
    const [nameStart, nameEnd] = name;
    const [valueStart, valueEnd] = value;
    if (type !== "symlink" && valueEnd - valueStart !== B3Digest.LENGTH) return undefined;
    let size: bigint | undefined = 0n;
    let executable = false;
    if (type !== "symlink" && this.#at < end && this.#buffer[this.#at] === TAG.size) {
      this.#at += 1;
      size = this.#number();
      if (size === undefined || size === 0n) return undefined; // a default is left out
    }
    if (type === "file" && this.#at < end && this.#buffer[this.#at] === TAG.executable) {
      executable = this.#buffer[this.#at + 1] === 1;
      if (!executable) return undefined;
      this.#at += 2;
    }
    if (this.#at !== end) return undefined;
    return { type, nameStart, nameEnd, valueStart, valueEnd, size, executable };
  }

  #field(tag: number, end: number): [start: number, end: number] | undefined {
    if (this.#buffer[this.#at++] !== tag) return undefined;
    const length = this.#length();
    const start = this.#at;
    if (length === undefined || start + length > end) return undefined;
    this.#at = start + length;
    return [start, this.#at];
  }

  /** Reads a length, which is below 2^32 in what fits into memory. */
  #length(): number | undefined {
    const length = this.#number();
    return length === undefined || length > 0xffff_ffffn ? undefined : Number(length);
  }

  #number(): bigint | undefined {
    const first = this.#buffer[this.#at++];
    if (first === undefined) return undefined;
    if (first < 0x80) return BigInt(first);
    let value = BigInt(first & 0x7f);
    for (let i = 1; i < MAX_VARINT_BYTES; i++) {
      const byte = this.#buffer[this.#at++];
      if (byte === undefined) return undefined;
      value |= BigInt(byte & 0x7f) << BigInt(7 * i);
      if (byte >= 0x80) continue;
      return byte === 0 || value > MAX_UINT64 ? undefined : value; // the shortest form ends with another byte
    }
    return undefined;
  }
}
