import { B3Digest } from "../model/digest.ts";
import type { DirectoryEntry } from "../model/directory.ts";
import { type Node, symlinkTarget } from "../model/node.ts";
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
    const isLink = node.type === "symlink";
    const body = isLink ? 2 + node.target.length : B3Digest.LENGTH + 8;
    this.#reserve(2 + name.length + body);
    const bytes = this.#bytes;
    let at = this.#length;
    bytes[at++] = kindOf(node);
    bytes[at++] = name.length;
    bytes.set(name, at);
    at += name.length;
    if (isLink) {
      bytes.writeUInt16LE(node.target.length, at);
      bytes.set(node.target, at + 2);
    } else {
      bytes.set(node.digest.bytes, at);
      bytes.writeBigUInt64LE(node.size, at + B3Digest.LENGTH);
    }
    this.#length = at + body;
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

function kindOf(node: Node): number {
  if (node.type === "directory") return DIRECTORY;
  if (node.type === "symlink") return SYMLINK;
  return node.executable ? EXECUTABLE : FILE;
}
