import type { PackedNode } from "./packed-directory.ts";
import { FILE_TYPE, ROOT_ID, WAKE_ID } from "./protocol/constants.ts";
import type { Attributes } from "./protocol/reply.ts";

/** A file, folder or symlink that the kernel knows, or is about to. */
export interface Inode extends Attributes {
  /** What it is; `undefined` for the root, and for the file that wakes. */
  readonly node: PackedNode | undefined;
  /** The inode of the folder that it was looked up in first. */
  readonly parent: number;
  /** Its position in that folder; -1 in the root, which has no order. */
  readonly index: number;
  /** What tells it from all others. */
  readonly key: string;
  /** How often the kernel was told of it, less what it forgot. */
  lookups: number;
}

/** Identifiers are below 2^52, so that they are exact as numbers; the first are taken. */
const ID_LIMIT = 2 ** 52;
const FIRST_ID = 3;

/**
 * The inodes that the kernel refers to. The identifier of a file or symlink follows from its contents, so that equal files
 * are one inode and share its pages in the page cache; a file that may be executed is another one than the same file
 * that may not. A folder has an identifier for each place where it is, since the kernel allows it one place only.
 */
export class InodeTable {
  readonly #inodes = new Map<number, Inode>();
  readonly #hash: (key: string) => number;

  /** @param hash returns a whole number below 2^52 for a key; two may be equal. Default: 52 bits of two hashes */
  constructor(hash: (key: string) => number = hashKey) {
    this.#hash = hash;
    const modes = { [ROOT_ID]: FILE_TYPE.directory | 0o555, [WAKE_ID]: FILE_TYPE.file | 0o444 };
    for (const [text, mode] of Object.entries(modes)) {
      const id = Number(text);
      const key = `fixed ${id}`;
      const inode = { id, mode, size: 0, node: undefined, parent: ROOT_ID, index: -1, key };
      this.#inodes.set(id, { ...inode, lookups: 1 });
    }
  }

  /** How many inodes there are, with the two that always are. */
  get size(): number {
    return this.#inodes.size;
  }

  /** Returns an inode; `undefined` for an identifier that the kernel was not given, or has forgotten. */
  get(id: number): Inode | undefined {
    return this.#inodes.get(id);
  }

  /** Returns the inode of an entry, which is kept only once {@link remember} was called for it. */
  of(parent: Inode, name: Buffer, node: PackedNode, index: number): Inode {
    const key = keyOf(parent, name, node);
    let id = FIRST_ID + (this.#hash(key) % (ID_LIMIT - FIRST_ID));
    for (;;) {
      const inode = this.#inodes.get(id);
      if (inode === undefined) break;
      if (inode.key === key) return inode;
      id = id + 1 < ID_LIMIT ? id + 1 : FIRST_ID; // taken by a collision
    }
    return { id, ...look(node), node, parent: parent.id, index, key, lookups: 0 };
  }

  /** Notes that the kernel is told of an inode once more. */
  remember(inode: Inode): void {
    if (inode.lookups === 0) this.#inodes.set(inode.id, inode);
    inode.lookups += 1;
  }

  /** Notes that the kernel forgot an inode so many times. Unknown inodes, and those that always are, are left alone. */
  forget(id: number, count: number): void {
    const inode = this.#inodes.get(id);
    if (inode === undefined || id < FIRST_ID) return;
    inode.lookups -= Math.min(count, inode.lookups);
    if (inode.lookups === 0) this.#inodes.delete(id);
  }
}

function look(node: PackedNode): { mode: number; size: number } {
  switch (node.type) {
    case "directory":
      return { mode: FILE_TYPE.directory | 0o555, size: 0 };
    case "file":
      return { mode: FILE_TYPE.file | (node.executable ? 0o555 : 0o444), size: node.size };
    case "symlink":
      return { mode: FILE_TYPE.symlink | 0o777, size: node.target.length };
  }
}

function keyOf(parent: Inode, name: Buffer, node: PackedNode): string {
  switch (node.type) {
    case "directory":
      return `d${node.digest}${parent.id}/${name.toString("latin1")}`;
    case "file":
      // Lengths are a part of it: one that belongs to no contents must not be taken for that of others.
      return `${node.executable ? "x" : "f"}${node.digest}${node.size}`;
    case "symlink":
      return `l${node.target.toString("latin1")}`;
  }
}

/** FNV-1a over the characters of a key, twice, with other beginnings and a last mixing. */
function hashKey(key: string): number {
  let low = 0x811c9dc5;
  let high = 0x2f0b4c47;
  for (let i = 0; i < key.length; i++) {
    const code = key.charCodeAt(i);
    low = Math.imul(low ^ code, 0x01000193);
    high = Math.imul(high ^ code, 0x85ebca6b);
    high ^= high >>> 13;
  }
  low ^= low >>> 16;
  return ((high >>> 0) % 0x10_0000) * 0x1_0000_0000 + (low >>> 0);
}
