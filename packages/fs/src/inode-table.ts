import type { PackedNode } from "./packed-directory.ts";
import { FILE_TYPE, ROOT_ID, WAKE_ID } from "./protocol/constants.ts";
import type { Attributes } from "./protocol/reply.ts";
import { lengthen, SlotMap } from "./slot-map.ts";

/** A file, folder or symlink that the kernel knows, or is about to. */
export interface Inode extends Attributes {
  /** What it is; `undefined` for the root, and for the file that wakes. */
  readonly node: PackedNode | undefined;
  /** The inode of the folder that it was looked up in first. */
  readonly parent: number;
  /** Its position in that folder; -1 in the root, which has no order. */
  readonly index: number;
  /** Its name in the root; `undefined` elsewhere, where its position tells as much. */
  readonly rootName: string | undefined;
}

/** Identifiers are below 2^52, so that they are exact as numbers; the first are taken. */
const ID_LIMIT = 2 ** 52;
const FIRST_ID = 3;

const DIGEST_BYTES = 32;
const KINDS = ["directory", "file", "executable", "symlink"] as const;
type Kind = (typeof KINDS)[number];

/** The columns of the table, of some 70 bytes an inode. */
class Columns {
  kinds = new Uint8Array(0);
  sizes = new Float64Array(0);
  parents = new Float64Array(0);
  indexes = new Int32Array(0);
  lookups = new Float64Array(0);
  digests: Buffer<ArrayBuffer> = Buffer.from(new ArrayBuffer(0));

  /** Makes room for so many inodes. */
  lengthen(capacity: number): void {
    this.kinds = new Uint8Array(lengthen(this.kinds, capacity));
    this.sizes = new Float64Array(lengthen(this.sizes, capacity));
    this.parents = new Float64Array(lengthen(this.parents, capacity));
    this.indexes = new Int32Array(lengthen(this.indexes, capacity));
    this.lookups = new Float64Array(lengthen(this.lookups, capacity));
    this.digests = Buffer.from(lengthen(this.digests, capacity * DIGEST_BYTES));
  }
}

/**
 * The inodes that the kernel refers to. The identifier of a file or symlink follows from its contents, so that equal files
 * are one inode and share its pages in the page cache; a file that may be executed is another one than the same file
 * that may not. A folder has an identifier for each place where it is, since the kernel allows it one place only.
 *
 * They stand in columns of numbers: as objects, those of a folder of 100,000 entries would take 40 MB.
 */
export class InodeTable {
  readonly #hash: (key: string) => number;
  readonly #columns = new Columns();
  readonly #slots = new SlotMap((capacity) => this.#columns.lengthen(capacity));
  /** What does not fit into columns: targets of symlinks, and names of folders in the root. */
  readonly #texts = new Map<number, string>();

  /** @param hash returns a whole number below 2^52 for a key; two may be equal. Default: 52 bits of two hashes */
  constructor(hash: (key: string) => number = hashKey) {
    this.#hash = hash;
    this.#columns.lengthen(this.#slots.capacity);
  }

  /** How many inodes there are, with the two that always are. */
  get size(): number {
    return this.#slots.size + FIXED.size;
  }

  /** Returns an inode; `undefined` for an identifier that the kernel was not given, or has forgotten. */
  get(id: number): Inode | undefined {
    const slot = this.#slots.get(id);
    return slot < 0 ? FIXED.get(id) : this.#inodeAt(slot, id);
  }

  /** Returns the inode of an entry, which is kept only once {@link remember} was called for it. */
  of(parent: Inode, name: Buffer, node: PackedNode, index: number): Inode {
    const rootName = index < 0 ? name.toString("latin1") : undefined;
    const entry = { ...look(node), node, parent: parent.id, index, rootName };
    let id = FIRST_ID + (this.#hash(keyOf(entry, name)) % (ID_LIMIT - FIRST_ID));
    for (;;) {
      const slot = this.#slots.get(id);
      if (slot < 0) return { id, ...entry };
      const inode = this.#inodeAt(slot, id);
      if (isSame(inode, entry)) return inode;
      id = id + 1 < ID_LIMIT ? id + 1 : FIRST_ID; // taken by a collision
    }
  }

  /** Notes that the kernel is told of an inode once more. */
  remember(inode: Inode): void {
    const { id, node, parent, index, rootName } = inode;
    if (id < FIRST_ID || node === undefined) return;
    const found = this.#slots.get(id);
    const slot = found < 0 ? this.#slots.add(id) : found;
    const columns = this.#columns;
    columns.lookups[slot]! += 1;
    if (found >= 0) return;
    columns.kinds[slot] = KINDS.indexOf(kindOf(node));
    columns.parents[slot] = parent;
    columns.indexes[slot] = index;
    if (node.type === "symlink") {
      this.#texts.set(slot, node.target.toString("latin1"));
      return;
    }
    columns.digests.write(node.digest, slot * DIGEST_BYTES, DIGEST_BYTES, "latin1");
    if (node.type === "file") columns.sizes[slot] = node.size;
    else if (rootName !== undefined) this.#texts.set(slot, rootName);
  }

  /** Notes that the kernel forgot an inode so many times. Unknown inodes, and those that always are, are left alone. */
  forget(id: number, count: number): void {
    const slot = this.#slots.get(id);
    if (slot < 0) return;
    const { lookups } = this.#columns;
    lookups[slot]! -= Math.min(count, lookups[slot]!);
    if (lookups[slot] !== 0) return;
    this.#slots.delete(id);
    this.#texts.delete(slot);
  }

  #inodeAt(slot: number, id: number): Inode & Place {
    const { kinds, sizes, parents, indexes, digests } = this.#columns;
    const kind = KINDS[kinds[slot]!]!;
    const text = this.#texts.get(slot);
    const at = slot * DIGEST_BYTES;
    const node =
      kind === "symlink"
        ? ({ type: "symlink", target: Buffer.from(text!, "latin1") } as const)
        : nodeOf(kind, digests.toString("latin1", at, at + DIGEST_BYTES), sizes[slot]!);
    const rootName = kind === "directory" ? text : undefined;
    return { id, ...look(node), node, parent: parents[slot]!, index: indexes[slot]!, rootName };
  }
}

function fixedInode(id: number, mode: number): [number, Inode] {
  const node = undefined;
  return [id, { id, mode, size: 0, node, parent: ROOT_ID, index: -1, rootName: undefined }];
}

/** The inodes that always are: the root, and the file that wakes. */
const FIXED: ReadonlyMap<number, Inode> = new Map([
  fixedInode(ROOT_ID, FILE_TYPE.directory | 0o555),
  fixedInode(WAKE_ID, FILE_TYPE.file | 0o444),
]);

function kindOf(node: PackedNode): Kind {
  return node.type === "file" && node.executable ? "executable" : node.type;
}

function nodeOf(kind: Exclude<Kind, "symlink">, digest: string, size: number): PackedNode {
  if (kind === "directory") return { type: "directory", digest };
  return { type: "file", digest, size, executable: kind === "executable" };
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

/** What tells an entry from others. */
type Place = Pick<Inode, "parent" | "index" | "rootName"> & { readonly node: PackedNode };

/** Tells whether two entries are one inode. */
function isSame(a: Place, b: Place): boolean {
  const [one, other] = [a.node, b.node];
  if (kindOf(one) !== kindOf(other)) return false;
  if (one.type === "symlink") return one.target.equals((other as typeof one).target);
  if (one.digest !== (other as typeof one).digest) return false;
  // Lengths count: one that belongs to no contents must not be taken for that of others.
  if (one.type === "file") return one.size === (other as typeof one).size;
  return a.parent === b.parent && a.index === b.index && a.rootName === b.rootName;
}

function keyOf({ node, parent }: Place, name: Buffer): string {
  switch (node.type) {
    case "directory":
      return `d${node.digest}${parent}/${name.toString("latin1")}`;
    case "file":
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
