import type { Directory, DirectoryEntry, Node } from "@tvix/castore";

/** What a name stands for, as the thread of the device knows it. */
export type PackedNode =
  | { readonly type: "directory"; readonly digest: string }
  | {
      readonly type: "file";
      readonly digest: string;
      readonly size: number;
      readonly executable: boolean;
    }
  | { readonly type: "symlink"; readonly target: Buffer };

/** A {@link PackedDirectory} on its way between threads. */
export interface PackedBytes {
  readonly records: Uint8Array<ArrayBuffer>;
  readonly starts: Uint32Array<ArrayBuffer>;
}

/** Kinds of records. */
const KIND = { directory: 0, file: 1, executable: 2, symlink: 3 } as const;
const DIGEST_BYTES = 32;

/**
 * The entries of a folder in one byte string, each decoded when it is asked for: an entry takes some sixty bytes in place
 * of several objects. Digests are strings of 32 characters U+0000 to U+00FF.
 */
export class PackedDirectory {
  readonly #records: Buffer;
  readonly #starts: Uint32Array;

  constructor({ records, starts }: PackedBytes) {
    this.#records = Buffer.from(records.buffer, records.byteOffset, records.length);
    this.#starts = starts;
  }

  /** How many entries there are. */
  get length(): number {
    return this.#starts.length;
  }

  /** How much memory they take, in bytes. */
  get byteLength(): number {
    return this.#records.length + this.#starts.byteLength;
  }

  /** Returns the name of an entry, which is a part of the directory. */
  nameAt(index: number): Buffer {
    const start = this.#starts[index]! + 2;
    return this.#records.subarray(start, start + this.#records[start - 1]!);
  }

  /** Returns the node of an entry. */
  nodeAt(index: number): PackedNode {
    const bytes = this.#records;
    const start = this.#starts[index]!;
    const at = start + 2 + bytes[start + 1]!;
    const kind = bytes[start];
    if (kind === KIND.symlink) {
      const target = bytes.subarray(at + 2, at + 2 + bytes.readUInt16LE(at));
      return { type: "symlink", target: Buffer.from(target) }; // which may outlive the directory
    }
    const digest = bytes.toString("latin1", at, at + DIGEST_BYTES);
    if (kind === KIND.directory) return { type: "directory", digest };
    const size = bytes.readDoubleLE(at + DIGEST_BYTES);
    return { type: "file", digest, size, executable: kind === KIND.executable };
  }

  /** Returns the index of a name; -1 if there is none. The entries have to be sorted. */
  indexOf(name: Uint8Array): number {
    let [low, high] = [0, this.#starts.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      const start = this.#starts[middle]! + 2;
      const order = this.#records.compare(
        name,
        0,
        name.length,
        start,
        start + this.#records[start - 1]!,
      );
      if (order === 0) return middle;
      if (order < 0) low = middle + 1;
      else high = middle;
    }
    return -1;
  }
}

/** Packs a directory, its entries sorted. */
export function packDirectory(directory: Directory): PackedBytes {
  return packEntries(directory.entries);
}

/** Packs entries in the order in which they come. */
export function packEntries(
  entries: readonly { readonly name: Uint8Array; readonly node: DirectoryEntry["node"] }[],
): PackedBytes {
  let length = 0;
  for (const { name, node } of entries) length += 2 + name.length + payloadLength(node);
  const records = new Uint8Array(length);
  const bytes = Buffer.from(records.buffer);
  const starts = new Uint32Array(entries.length);
  let at = 0;
  for (const [i, { name, node }] of entries.entries()) {
    starts[i] = at;
    bytes[at] = kindOf(node);
    bytes[at + 1] = name.length;
    records.set(name, at + 2);
    at += 2 + name.length;
    if (node.type === "symlink") {
      bytes.writeUInt16LE(node.target.length, at);
      records.set(node.target, at + 2);
    } else {
      records.set(node.digest.bytes, at);
      if (node.type === "file") bytes.writeDoubleLE(Number(node.size), at + DIGEST_BYTES);
    }
    at += payloadLength(node);
  }
  return { records, starts };
}

function payloadLength(node: Node): number {
  if (node.type === "symlink") return 2 + node.target.length;
  return node.type === "file" ? DIGEST_BYTES + 8 : DIGEST_BYTES;
}

function kindOf(node: Node): number {
  if (node.type !== "file") return KIND[node.type];
  return node.executable ? KIND.executable : KIND.file;
}
