import { B3Digest } from "../model/digest.ts";
import type { DirectoryEntry } from "../model/directory.ts";
import { type DirectoryNode, type FileNode, type Node, symlinkTarget } from "../model/node.ts";
import { type PathComponent, pathComponent } from "../model/path.ts";

const FIRST_BYTES = 256;

/** Kinds of records. */
const DIRECTORY = 0;
const FILE = 1;
const EXECUTABLE = 2;
const SYMLINK = 3;

/**
 * The entries of one folder while it is read, packed: one takes 42 bytes and its name, where objects would take
 * 700. A folder may have a million of them.
 */
export class PackedEntries {
  #bytes: Buffer = Buffer.allocUnsafeSlow(FIRST_BYTES);
  #length = 0;

  /** Adds an entry. Names and nodes are copied. */
  push(name: PathComponent, node: Node): void {
    if (node.type === "symlink") {
      const at = this.#begin(SYMLINK, name, 2 + node.target.length);
      this.#bytes.writeUInt16LE(node.target.length, at);
      this.#bytes.set(node.target, at + 2);
    } else {
      const at = this.#begin(kindOf(node), name, B3Digest.LENGTH + 8);
      this.#bytes.set(node.digest.bytes, at);
      this.#bytes.writeBigUInt64LE(node.size, at + B3Digest.LENGTH);
    }
  }

  /** Adds a file, whose digest is 32 bytes. */
  pushFile(name: PathComponent, digest: Uint8Array, size: number, isExecutable: boolean): void {
    const at = this.#begin(isExecutable ? EXECUTABLE : FILE, name, B3Digest.LENGTH + 8);
    this.#bytes.set(digest, at);
    this.#bytes.writeUInt32LE(size % 2 ** 32, at + B3Digest.LENGTH);
    this.#bytes.writeUInt32LE(Math.floor(size / 2 ** 32), at + B3Digest.LENGTH + 4);
  }

  /** Begins a record with kind and name. Returns where the other fields go, for which there is room. */
  #begin(kind: number, name: PathComponent, rest: number): number {
    this.#reserve(2 + name.length + rest);
    let at = this.#length;
    this.#bytes[at++] = kind;
    this.#bytes[at++] = name.length;
    this.#bytes.set(name, at);
    at += name.length;
    this.#length = at + rest;
    return at;
  }

  /** The entries in the order in which they came. Their bytes are shared: nothing is pushed from then on. */
  *[Symbol.iterator](): Generator<DirectoryEntry> {
    const bytes = this.#bytes;
    let at = 0;
    const take = (length: number): Uint8Array => {
      at += length;
      return new Uint8Array(bytes.buffer, at - length, length);
    };
    while (at < this.#length) {
      const kind = bytes[at++]!;
      const name = pathComponent(take(bytes[at++]!));
      if (kind === SYMLINK) {
        const length = bytes.readUInt16LE(at);
        at += 2;
        yield { name, node: { type: "symlink", target: symlinkTarget(take(length)) } };
      } else {
        const digest = B3Digest.fromBytes(take(B3Digest.LENGTH));
        const size = bytes.readBigUInt64LE(at);
        at += 8;
        yield kind === DIRECTORY
          ? { name, node: { type: "directory", digest, size } }
          : { name, node: { type: "file", digest, size, executable: kind === EXECUTABLE } };
      }
    }
  }

  #reserve(length: number): void {
    const needed = this.#length + length;
    if (needed <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.#bytes.length));
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
  }
}

function kindOf(node: FileNode | DirectoryNode): number {
  if (node.type === "directory") return DIRECTORY;
  return node.executable ? EXECUTABLE : FILE;
}
