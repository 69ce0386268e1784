/** How many bytes are allocated at a time. Longer byte strings have memory of their own. */
const SLAB_BYTES = 1024 * 1024;

/** From this length on, byte strings have memory of their own. */
const LONG_BYTES = 128 * 1024;

/**
 * Keeps byte strings, in memory that is shared between threads: V8 does not count that, while every ten megabytes of any
 * other have it collect the whole heap. A slab is freed once nothing in it is used.
 */
export class ByteArena {
  #slab = new Uint8Array(new SharedArrayBuffer(0));
  #used = 0;

  /** Returns a copy of bytes. */
  keep(bytes: Uint8Array): Uint8Array {
    const copy = this.#allocate(bytes.length);
    copy.set(bytes);
    return copy;
  }

  #allocate(length: number): Uint8Array {
    if (length >= LONG_BYTES) return new Uint8Array(new SharedArrayBuffer(length));
    if (this.#used + length > this.#slab.length) {
      this.#slab = new Uint8Array(new SharedArrayBuffer(SLAB_BYTES));
      this.#used = 0;
    }
    this.#used += length;
    return this.#slab.subarray(this.#used - length, this.#used);
  }
}
