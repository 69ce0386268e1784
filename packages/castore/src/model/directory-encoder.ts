import { compareBytes, equalBytes, joinApart, quoteBytes } from "../bytes/byte-string.ts";
import { freeMemory } from "../bytes/free-memory.ts";
import { compareParts, EncodedEntries, LIST_TAGS, TAG } from "./encoded-entries.ts";
import { CastoreError } from "./errors.ts";
import type { Node } from "./node.ts";
import type { PathComponent } from "./path.ts";

const FIRST_BYTES = 1024;
const FIRST_ENTRIES = 8;

const MAX_UINT64 = 2n ** 64n - 1n;

/** The types of nodes, in the order of their lists in the encoding. */
const TYPES = ["directory", "file", "symlink"] as const;

/**
 * Encodes the entries of one directory as they come, in any order: a directory of a million of them takes hardly more memory
 * than its encoding. It is fastest for entries that come sorted.
 *
 * Format: Protocol Buffers, "Encoding", for the messages in castore.proto: fields in number order, defaults left out.
 */
export class DirectoryEncoder {
  readonly #lists: Record<Node["type"], RecordList> = {
    directory: new RecordList(LIST_TAGS.directory),
    file: new RecordList(LIST_TAGS.file),
    symlink: new RecordList(LIST_TAGS.symlink),
  };
  #length = 0;
  /** Of each entry in the order of the calls: the list that it is in, and where its record begins there. */
  #types: Uint8Array = new Uint8Array(FIRST_ENTRIES);
  #starts: Uint32Array = new Uint32Array(FIRST_ENTRIES);
  #last: RecordList | undefined;
  #isSorted = true;
  #sizeBelow = 0n;

  /** Adds an entry, whose name and node are copied. */
  push(name: PathComponent, node: Node): void {
    const list = this.#next(node.type, name);
    if (node.type === "symlink") {
      list.addSymlink(name, node.target);
    } else {
      const { digest, size } = node;
      list.addSized(name, digest.bytes, size, node.type === "file" && node.executable);
      if (node.type === "directory") this.#sizeBelow += size;
    }
  }

  /** Adds a file, whose digest is 32 bytes. Both are copied. */
  pushFile(name: PathComponent, digest: Uint8Array, size: number, isExecutable: boolean): void {
    this.#next("file", name).addSized(name, digest, size, isExecutable);
  }

  /**
   * Returns the entries, sorted by name, and the size of their directory. Nothing is added afterwards.
   *
   * @throws CastoreError `invalid_argument` if a name occurs twice or the size exceeds 64 bits
   */
  finish(): { entries: EncodedEntries; size: bigint } {
    const arrived = this.#join();
    const entries = this.#isSorted ? arrived : sort(arrived);
    const size = 2n * BigInt(this.#length) + this.#sizeBelow;
    if (size > MAX_UINT64) {
      throw new CastoreError(
        "invalid_argument",
        `Cannot build directory: its size ${size} exceeds 64 bits`,
      );
    }
    return { entries, size };
  }

  /** Notes that an entry is added. Returns the list that it goes to. */
  #next(type: Node["type"], name: PathComponent): RecordList {
    const list = this.#lists[type];
    if (this.#isSorted && this.#last?.endsBefore(name) === false) this.#isSorted = false;
    this.#last = list;
    if (this.#length === this.#starts.length) {
      this.#types = enlarged(this.#types, new Uint8Array(2 * this.#length));
      this.#starts = enlarged(this.#starts, new Uint32Array(2 * this.#length));
    }
    this.#types[this.#length] = TYPES.indexOf(type);
    this.#starts[this.#length++] = list.length;
    return list;
  }

  /** Joins the lists, and frees their memory. The entries are in the order in which they came. */
  #join(): EncodedEntries {
    const lists = TYPES.map((type) => this.#lists[type].bytes);
    const bytes = joinApart(lists);
    const starts = this.#starts.slice(0, this.#length);
    const offsets = [0, lists[0]!.length, lists[0]!.length + lists[1]!.length];
    for (let i = 0; i < starts.length; i++) starts[i]! += offsets[this.#types[i]!]!;
    for (const type of TYPES) this.#lists[type].free();
    return new EncodedEntries({ bytes, starts });
  }
}

/** Encodes entries again, sorted by name. */
function sort(arrived: EncodedEntries): EncodedEntries {
  const sorted = Array.from(arrived.starts, (_, i) => arrived.at(i)).sort((a, b) =>
    compareBytes(a.name, b.name),
  );
  const encoder = new DirectoryEncoder();
  let before: PathComponent | undefined;
  for (const { name, node } of sorted) {
    if (before !== undefined && equalBytes(before, name)) {
      throw new CastoreError(
        "invalid_argument",
        `Cannot build directory: name ${quoteBytes(name)} occurs twice`,
      );
    }
    encoder.push(name, node);
    before = name;
  }
  return encoder.finish().entries;
}

/** Encoded nodes of one type, one behind the other. */
class RecordList {
  readonly #tag: number;
  #buffer: Buffer = Buffer.allocUnsafeSlow(0);
  #at = 0;
  /** Where the name of the last one is. */
  #nameStart = 0;
  #nameEnd = 0;

  /** @param tag what each begins with */
  constructor(tag: number) {
    this.#tag = tag;
  }

  /** Length of all in bytes. */
  get length(): number {
    return this.#at;
  }

  /** Valid until one is added. */
  get bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#at);
  }

  free(): void {
    freeMemory([this.#buffer]);
  }

  /** Whether the name of the last one stands before this name. */
  endsBefore(name: PathComponent): boolean {
    return compareParts(this.#buffer, this.#nameStart, this.#nameEnd, name, 0, name.length) < 0;
  }

  /** Adds a file or a directory. */
  addSized(
    name: PathComponent,
    digest: Uint8Array,
    size: number | bigint,
    isExecutable: boolean,
  ): void {
    const sizeLength = size > 0 ? 1 + varintLength(size) : 0;
    this.#begin(name, fieldLength(digest) + sizeLength + (isExecutable ? 2 : 0));
    this.#field(TAG.digest, digest);
    if (size > 0) {
      this.#buffer[this.#at++] = TAG.size;
      this.#varint(size);
    }
    if (isExecutable) {
      this.#buffer[this.#at++] = TAG.executable;
      this.#buffer[this.#at++] = 1;
    }
  }

  addSymlink(name: PathComponent, target: Uint8Array): void {
    this.#begin(name, fieldLength(target));
    this.#field(TAG.target, target);
  }

  /** Begins a record with its name, and makes room for all of it. */
  #begin(name: PathComponent, rest: number): void {
    const body = fieldLength(name) + rest;
    this.#reserve(1 + varintLength(body) + body);
    this.#buffer[this.#at++] = this.#tag;
    this.#varint(body);
    this.#field(TAG.name, name);
    this.#nameEnd = this.#at;
    this.#nameStart = this.#at - name.length;
  }

  #field(tag: number, bytes: Uint8Array): void {
    this.#buffer[this.#at++] = tag;
    this.#varint(bytes.length);
    this.#buffer.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  #varint(value: number | bigint): void {
    let large = value;
    for (; large > Number.MAX_SAFE_INTEGER; large = BigInt(large) >> 7n) {
      this.#buffer[this.#at++] = Number(BigInt(large) & 0x7fn) | 0x80;
    }
    let rest = Number(large);
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) {
      this.#buffer[this.#at++] = (rest % 0x80) | 0x80;
    }
    this.#buffer[this.#at++] = rest;
  }

  #reserve(length: number): void {
    const needed = this.#at + length;
    if (needed <= this.#buffer.length) return;
    const room = Math.max(needed, FIRST_BYTES, 2 * this.#buffer.length);
    const larger = enlarged(this.#buffer, Buffer.allocUnsafeSlow(room));
    this.free();
    this.#buffer = larger;
  }
}

function fieldLength({ length }: Uint8Array): number {
  return 1 + varintLength(length) + length;
}

function varintLength(value: number | bigint): number {
  let length = 1;
  for (let limit = 128; value >= limit; limit *= 128) length += 1;
  return length;
}

/** Copies an array into a larger one. */
function enlarged<T extends Uint8Array | Uint32Array>(array: T, larger: T): T {
  larger.set(array);
  return larger;
}
