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

/** Length in bytes of the length prefix of an outboard, little-endian. */
const HEADER_BYTES = 8;

/** Length of a node in bytes: the chaining values of its left and right children. */
const NODE_BYTES = 2 * VALUE_BYTES;

/**
 * Verifies any part of a blob against the digest of the blob. Holds the inner nodes of the BLAKE3 tree down to groups
 * of 16 KiB: 64 bytes for each group but one.
 *
 * The format is that of bao (https://github.com/oconnor663/bao/blob/master/docs/spec.md) for an outboard, with groups
 * in place of chunks: the length of the blob, then the nodes in pre-order. A blob of up to one group has no nodes.
 */
export class Outboard {
  /** Digest of the blob. */
  readonly digest: B3Digest;
  /** Length of the blob in bytes. Unproven until the last byte of the blob is verified. */
  readonly size: number;
  /** The encoded outboard. */
  readonly bytes: Uint8Array;

  private constructor(digest: B3Digest, size: number, bytes: Uint8Array) {
    this.digest = digest;
    this.size = size;
    this.bytes = bytes;
  }

  /** Returns the length of the outboard of a blob in bytes. */
  static length(size: number): number {
    return HEADER_BYTES + Math.max(groupsIn(size) - 1, 0) * NODE_BYTES;
  }

  /**
   * Parses an untrusted outboard. A wrong node is found when a part below it is verified.
   *
   * @throws CastoreError `data_loss` if it does not belong to this blob
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
   * @param data whole groups from `first` on, up to {@link MAX_HASHED_BYTES}. The last group of the blob may be shorter
   * @param first index of the first group
   * @throws CastoreError `data_loss` if the bytes are wrong, or the outboard belongs to another blob
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

  /** Returns the values of some groups. Verifies the nodes above them, the root in any case. */
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

/** Computes the outboard of a blob that arrives in pieces. Holds 32 bytes for each 16 KiB. */
export class OutboardEncoder {
  readonly #pending = new Uint8Array(MAX_HASHED_BYTES);
  #pendingBytes = 0;
  #values = new Uint8Array(64 * VALUE_BYTES);
  #groups = 0;
  #size = 0;

  /** Adds bytes, without keeping them. */
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

  /** Length of the outboard of the bytes so far. */
  get length(): number {
    return Outboard.length(this.#size);
  }

  /** Returns the outboard. Called once, last. */
  finish(): Uint8Array {
    this.#flush();
    const bytes = new Uint8Array(Outboard.length(this.#size));
    new DataView(bytes.buffer).setBigUint64(0, BigInt(this.#size), true);
    /** Writes the nodes of some groups, and returns the value of the topmost node. */
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

/** Returns the number of groups in a blob, 0 for the empty blob. */
function groupsIn(size: number): number {
  return Math.ceil(size / GROUP_BYTES);
}

/** Returns the number of groups in the left subtree: the largest power of two below the number of all groups. */
function groupsOnTheLeft(count: number): number {
  return 2 ** Math.floor(Math.log2(count - 1));
}

function refusal(digest: B3Digest, reason: string): CastoreError {
  return new CastoreError("data_loss", `Cannot verify blob ${digest}: ${reason}`);
}
