import { B3Digest } from "../model/digest.ts";
import type { ChunkMeta } from "./chunk-list.ts";

/** An entry: digest (32), then offset and length (unsigned 32 bits each). */
const ENTRY_BYTES = B3Digest.LENGTH + 8;

/** How many blobs there is room for at first. */
const CAPACITY = 32;

/** Small blobs, or chunks of blobs, each with the place of its contents in a buffer. Packed, to travel to other threads. */
export class BlobPlaces {
  #view: DataView<ArrayBuffer>;
  #length: number;

  /** @param packed what {@link packed} returned. Default: none */
  constructor(packed: Uint8Array<ArrayBuffer> = new Uint8Array(0)) {
    this.#view = new DataView(packed.buffer, packed.byteOffset, packed.length);
    this.#length = packed.length / ENTRY_BYTES;
  }

  /** How many blobs there are. */
  get length(): number {
    return this.#length;
  }

  /** How many bytes they have together. */
  get size(): number {
    let size = 0;
    for (let i = 0; i < this.#length; i++) {
      size += this.#view.getUint32(i * ENTRY_BYTES + B3Digest.LENGTH + 4);
    }
    return size;
  }

  /** Adds a blob, of whose digest a copy is kept. Offset and length are in bytes. */
  add(digest: B3Digest, offset: number, length: number): void {
    const at = this.#length * ENTRY_BYTES;
    if (at === this.#view.byteLength) this.#grow();
    new Uint8Array(this.#view.buffer, at, B3Digest.LENGTH).set(digest.bytes);
    this.#view.setUint32(at + B3Digest.LENGTH, offset);
    this.#view.setUint32(at + B3Digest.LENGTH + 4, length);
    this.#length += 1;
  }

  /** Returns digest and length of a blob. */
  at(index: number): ChunkMeta {
    const { buffer, byteOffset } = this.#view;
    const at = index * ENTRY_BYTES;
    const digest = B3Digest.fromBytes(new Uint8Array(buffer, byteOffset + at, B3Digest.LENGTH));
    return { digest, size: this.#view.getUint32(at + B3Digest.LENGTH + 4) };
  }

  /** Returns the part of the buffer that is for the contents of a blob. */
  placeIn(target: Uint8Array<ArrayBuffer>, index: number): Uint8Array<ArrayBuffer> {
    const at = index * ENTRY_BYTES + B3Digest.LENGTH;
    const offset = this.#view.getUint32(at);
    return target.subarray(offset, offset + this.#view.getUint32(at + 4));
  }

  /** Returns all of them in one piece, for the constructor. */
  packed(): Uint8Array<ArrayBuffer> {
    const { buffer, byteOffset } = this.#view;
    return new Uint8Array(buffer, byteOffset, this.#length * ENTRY_BYTES).slice();
  }

  #grow(): void {
    const bytes = new Uint8Array(Math.max(CAPACITY, this.#length * 2) * ENTRY_BYTES);
    const { buffer, byteOffset, byteLength } = this.#view;
    bytes.set(new Uint8Array(buffer, byteOffset, byteLength));
    this.#view = new DataView(bytes.buffer);
  }
}
