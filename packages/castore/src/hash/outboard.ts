import { equalBytes } from "../bytes/byte-string.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { blake3Digest } from "./blake3-digest.ts";
import {
  GROUP_BYTES,
  hashGroups,
  hashParent,
  MAX_HASHED_BYTES,
  VALUE_BYTES,
} from "./blake3-tree.ts";

/** How many bytes of an outboard say how long the blob is: little-endian. */
const HEADER_BYTES = 8;

/** How many bytes a node of the tree takes: the values of what is left and right below it. */
const NODE_BYTES = 2 * VALUE_BYTES;

/**
 * What is needed to tell, of any part of a blob, whether it is what the digest stands for: the inner nodes of the tree
 * of BLAKE3 down to groups of 16 KiB, 64 bytes for each group but one.
 *
 * The format is that of bao (https://github.com/oconnor663/bao/blob/master/docs/spec.md) for an outboard, with such
 * groups in place of chunks: the length of the blob, then the nodes in pre-order. A blob of up to one group has none.
 */
export class Outboard {
  /** Digest of the blob. */
  readonly digest: B3Digest;
  /** Length of the blob in bytes. Only proven where the last byte of the blob was verified. */
  readonly size: number;
  /** The outboard itself. */
  readonly bytes: Uint8Array;

  private constructor(digest: B3Digest, size: number, bytes: Uint8Array) {
    this.digest = digest;
    this.size = size;
    this.bytes = bytes;
  }

  /** How long the outboard of a blob is, in bytes. */
  static length(size: number): number {
    return HEADER_BYTES + Math.max(groupsIn(size) - 1, 0) * NODE_BYTES;
  }

  /**
   * Takes an outboard that somebody else made. What is wrong in it is found when something is verified, if not
   * here.
   *
   * @throws CastoreError `data_loss` if it is not one of this blob
   */
  static parse(digest: B3Digest, bytes: Uint8Array): Outboard {
    if (bytes.length < HEADER_BYTES) throw refusal(digest, `it has only ${bytes.length} bytes`);
    const header = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
    const size = Number(header.getBigUint64(0, true));
    const expected = Outboard.length(size);
    if (bytes.length !== expected) {
      const found = `found ${bytes.length}`;
      throw refusal(digest, `expected ${expected} bytes for a blob of ${size}, ${found}`);
    }
    const outboard = new Outboard(digest, size, bytes);
    outboard.#groupValues(0, 0);
    return outboard;
  }

  /**
   * Verifies a part of the blob.
   *
   * @param data all of the groups from `first` on, up to {@link MAX_HASHED_BYTES}: whole ones, and the last one of
   *   the blob as long as it is
   * @param first how many groups come before them
   * @throws CastoreError `data_loss` if they are something else, or the outboard is that of another blob
   */
  verify(data: Uint8Array, first: number): void {
    const count = groupsIn(data.length);
    const end = Math.min((first + count) * GROUP_BYTES, this.size);
    if (data.length === 0 ? this.size > 0 : first * GROUP_BYTES + data.length !== end) {
      throw refusal(this.digest, `the blob ends elsewhere than at ${this.size}`);
    }
    if (groupsIn(this.size) <= 1) {
      if (blake3Digest(data).equals(this.digest)) return;
      throw refusal(this.digest, "the bytes are others");
    }
    const expected = this.#groupValues(first, first + count);
    const found = hashGroups(data, first);
    for (let i = 0; i < count; i++) {
      const [from, to] = [i * VALUE_BYTES, (i + 1) * VALUE_BYTES];
      if (equalBytes(expected.subarray(from, to), found.subarray(from, to))) continue;
      throw refusal(this.digest, `the bytes from ${(first + i) * GROUP_BYTES} on are others`);
    }
  }

  /** The values of some groups, for which every node above them is verified, and the root in any case. */
  #groupValues(first: number, end: number): Uint8Array {
    const values = new Uint8Array((end - first) * VALUE_BYTES);
    const visit = (at: number, from: number, count: number, expected: Uint8Array) => {
      if (count === 1) {
        values.set(expected, (from - first) * VALUE_BYTES);
        return;
      }
      const node = this.bytes.subarray(at, at + NODE_BYTES);
      if (!equalBytes(hashParent(node, at === HEADER_BYTES), expected)) {
        throw refusal(this.digest, `the node at byte ${at} of its outboard is wrong`);
      }
      const left = groupsOnTheLeft(count);
      if (first < from + left && end > from) {
        visit(at + NODE_BYTES, from, left, node.subarray(0, VALUE_BYTES));
      }
      if (first < from + count && end > from + left) {
        const behind = at + left * NODE_BYTES;
        visit(behind, from + left, count - left, node.subarray(VALUE_BYTES));
      }
    };
    const count = groupsIn(this.size);
    if (count > 1) visit(HEADER_BYTES, 0, count, this.digest.bytes);
    return values;
  }
}

/** Makes the outboard of a blob that comes in pieces. Holds 32 bytes for each 16 KiB. */
export class OutboardEncoder {
  readonly #pending = new Uint8Array(MAX_HASHED_BYTES);
  #pendingBytes = 0;
  #values = new Uint8Array(64 * VALUE_BYTES);
  #groups = 0;
  #size = 0;

  /** Adds bytes; they are not kept. */
  update(data: Uint8Array): void {
    for (let at = 0; at < data.length; ) {
      const part = data.subarray(at, at + MAX_HASHED_BYTES - this.#pendingBytes);
      this.#pending.set(part, this.#pendingBytes);
      this.#pendingBytes += part.length;
      at += part.length;
      if (this.#pendingBytes === MAX_HASHED_BYTES) this.#flush();
    }
    this.#size += data.length;
  }

  /** How long the outboard is by now, in bytes. */
  get length(): number {
    return Outboard.length(this.#size);
  }

  /** The outboard. To be called once, last. */
  finish(): Uint8Array {
    this.#flush();
    const bytes = new Uint8Array(Outboard.length(this.#size));
    new DataView(bytes.buffer).setBigUint64(0, BigInt(this.#size), true);
    /** Writes the nodes of some groups; gives the value of the uppermost. */
    const write = (at: number, from: number, count: number): Uint8Array => {
      if (count === 1) return this.#values.subarray(from * VALUE_BYTES, (from + 1) * VALUE_BYTES);
      const left = groupsOnTheLeft(count);
      const node = bytes.subarray(at, at + NODE_BYTES);
      node.set(write(at + NODE_BYTES, from, left));
      node.set(write(at + left * NODE_BYTES, from + left, count - left), VALUE_BYTES);
      return hashParent(node, false);
    };
    if (this.#groups > 1) write(HEADER_BYTES, 0, this.#groups);
    return bytes;
  }

  #flush(): void {
    if (this.#pendingBytes === 0) return;
    const values = hashGroups(this.#pending.subarray(0, this.#pendingBytes), this.#groups);
    const start = this.#groups * VALUE_BYTES;
    if (start + values.length > this.#values.length) {
      const larger = new Uint8Array(2 * this.#values.length);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values.set(values, start);
    this.#groups += values.length / VALUE_BYTES;
    this.#pendingBytes = 0;
  }
}

/** How many groups a blob has; a blob of no bytes has none. */
function groupsIn(size: number): number {
  return Math.ceil(size / GROUP_BYTES);
}

/** How many of the groups below a node are on its left: the largest power of two that is less than all. */
function groupsOnTheLeft(count: number): number {
  return 2 ** Math.floor(Math.log2(count - 1));
}

function refusal(digest: B3Digest, reason: string): CastoreError {
  return new CastoreError("data_loss", `Cannot verify blob ${digest}: ${reason}`);
}
