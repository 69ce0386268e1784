/**
 * Buffers that threads share, used again and again: the collector of garbage would free shared ones much
 * too late.
 */
export class SlabPool {
  readonly #slabBytes: number;
  readonly #maxSpare: number;
  readonly #spare: SharedArrayBuffer[] = [];

  /**
   * @param slabBytes length of a slab
   * @param maxSpare how many slabs that are not used are kept
   */
  constructor(slabBytes: number, maxSpare: number) {
    this.#slabBytes = slabBytes;
    this.#maxSpare = maxSpare;
  }

  /** A slab. What is in it means nothing. */
  take(): SharedArrayBuffer {
    return this.#spare.pop() ?? new SharedArrayBuffer(this.#slabBytes);
  }

  /** Gives back a slab that nobody uses any more. */
  give(slab: SharedArrayBuffer): void {
    if (this.#spare.length < this.#maxSpare) this.#spare.push(slab);
  }
}
