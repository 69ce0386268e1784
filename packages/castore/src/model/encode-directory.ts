import type { Directory, DirectoryEntry } from "./directory.ts";
import type { Node } from "./node.ts";

/** Fields of the message `Directory`, by the type of their nodes. In its encoding they come in this order. */
const LISTS = [
  ["directory", 1],
  ["file", 2],
  ["symlink", 3],
] as const;

const FIELD_BYTES = 2; // the tag of a field with a length, or of a number; all fields are below 16
const LENGTH_DELIMITED = 2;
const VARINT = 0;

/**
 * Encodes a directory canonically: fields in number order, defaults left out. Written for directories of a million
 * entries, for which a library would make three objects each.
 *
 * Format: Protocol Buffers, "Encoding", for the messages in castore.proto.
 */
export function encodeDirectoryMessage({ entries }: Directory): Uint8Array<ArrayBuffer> {
  let length = 0;
  for (const { name, node } of entries) {
    const body = nodeLength(name, node);
    length += 1 + varintLength(body) + body;
  }
  const writer = new Writer(length);
  for (const [type, field] of LISTS) {
    for (const entry of entries) if (entry.node.type === type) writer.node(field, entry);
  }
  return writer.bytes;
}

function nodeLength(name: Uint8Array, node: Node): number {
  const named = bytesLength(name);
  if (node.type === "symlink") return named + bytesLength(node.target);
  const size = node.size === 0n ? 0 : 1 + varintLength(node.size);
  const executable = node.type === "file" && node.executable ? FIELD_BYTES : 0;
  return named + bytesLength(node.digest.bytes) + size + executable;
}

function bytesLength({ length }: Uint8Array): number {
  return length === 0 ? 0 : 1 + varintLength(length) + length;
}

function varintLength(value: number | bigint): number {
  let length = 1;
  for (let limit = 128; value >= limit; limit *= 128) length += 1;
  return length;
}

class Writer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  #at = 0;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
  }

  node(field: number, { name, node }: DirectoryEntry): void {
    this.#tag(field, LENGTH_DELIMITED);
    this.#varint(nodeLength(name, node));
    this.#bytes(1, name);
    if (node.type === "symlink") {
      this.#bytes(2, node.target);
      return;
    }
    this.#bytes(2, node.digest.bytes);
    if (node.size !== 0n) this.#number(3, node.size);
    if (node.type === "file" && node.executable) this.#number(4, 1n);
  }

  #bytes(field: number, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#tag(field, LENGTH_DELIMITED);
    this.#varint(bytes.length);
    this.bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  #number(field: number, value: bigint): void {
    this.#tag(field, VARINT);
    this.#varint(value);
  }

  #tag(field: number, type: number): void {
    this.bytes[this.#at++] = (field << 3) | type;
  }

  #varint(value: number | bigint): void {
    let large = value;
    for (; large > Number.MAX_SAFE_INTEGER; large = BigInt(large) >> 7n) {
      this.bytes[this.#at++] = Number(BigInt(large) & 0x7fn) | 0x80;
    }
    let rest = Number(large);
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) {
      this.bytes[this.#at++] = (rest % 0x80) | 0x80;
    }
    this.bytes[this.#at++] = rest;
  }
}
