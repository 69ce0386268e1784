/** Positions count up to here, and begin anew. */
const POSITIONS = 2 ** 30;

/** Memory that two threads share, and how far the one that reads is: the position behind what it needs no more. */
export interface SharedRingMemory {
  /** As long as a power of two, up to 2^29. */
  readonly bytes: SharedArrayBuffer;
  readonly released: Int32Array<SharedArrayBuffer>;
}

/** Where bytes are in a ring, and the position behind them. */
export interface Region {
  readonly start: number;
  readonly length: number;
  readonly end: number;
}

/** Returns a ring of so many bytes: a power of two, up to 2^29. */
export function sharedRing(byteLength: number): SharedRingMemory {
  return {
    bytes: new SharedArrayBuffer(byteLength),
    released: new Int32Array(new SharedArrayBuffer(4)),
  };
}

/**
 * Passes bytes to another thread, in the order in which they are released there: buffers that are moved would each make V8
 * collect the heap of this thread sooner.
 */
export class RingWriter {
  readonly #ring: SharedRingMemory;
  readonly #memory: Buffer;
  #next = 0;

  constructor(ring: SharedRingMemory) {
    this.#ring = ring;
    this.#memory = Buffer.from(ring.bytes);
  }

  /** Copies bytes into the ring; returns `undefined` where there is no room for them now. */
  write(bytes: Uint8Array): Region | undefined {
    const size = this.#memory.length;
    const { length } = bytes;
    const at = this.#next % size;
    const skipped = at + length > size ? size - at : 0; // bytes are in one piece
    const released = Atomics.load(this.#ring.released, 0);
    const used = (this.#next - released + POSITIONS) % POSITIONS;
    if (used + skipped + length > size) return undefined;
    const start = (at + skipped) % size;
    const { buffer, byteOffset } = bytes;
    Buffer.from(buffer).copy(this.#memory, start, byteOffset, byteOffset + length); // `set` takes longer where memory is shared
    this.#next = (this.#next + skipped + length) % POSITIONS;
    return { start, length, end: this.#next };
  }
}

/** Returns the bytes of a region. */
export function bytesIn({ bytes }: SharedRingMemory, { start, length }: Region): Buffer {
  return Buffer.from(bytes, start, length);
}

/** Makes room: a region, and those written before it, are needed no more. */
export function release({ released }: SharedRingMemory, { end }: Region): void {
  Atomics.store(released, 0, end);
}
