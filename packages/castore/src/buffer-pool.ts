/**
 * Buffers that are used again and again. For new ones, of this size, the collector of garbage would run
 * all the time; and it frees those that threads share much too late.
 */
export class BufferPool<Memory extends ArrayBuffer | SharedArrayBuffer> {
  readonly #allocate: (bytes: number) => Memory;
  readonly #minBytes: number;
  readonly #maxSpare: number;
  readonly #spare: Memory[] = [];

  /**
   * @param allocate makes a buffer
   * @param options.minBytes length of the shortest one
   * @param options.maxSpare how many that are not used are kept
   */
  constructor(
    allocate: (bytes: number) => Memory,
    options: { minBytes: number; maxSpare: number },
  ) {
    this.#allocate = allocate;
    this.#minBytes = options.minBytes;
    this.#maxSpare = options.maxSpare;
  }

  /** A buffer of at least so many bytes. What is in it means nothing. */
  take(bytes: number = 0): Memory {
    const i = this.#spare.findLastIndex(({ byteLength }) => byteLength >= bytes);
    if (i >= 0) return this.#spare.splice(i, 1)[0]!;
    let length = this.#minBytes;
    while (length < bytes) length *= 2;
    return this.#allocate(length);
  }

  /** Gives back a buffer that nobody uses any more. */
  give(buffer: Memory): void {
    if (this.#spare.length < this.#maxSpare) this.#spare.push(buffer);
  }
}

/** A pool of buffers that threads can share. */
export function sharedBufferPool(options: {
  minBytes: number;
  maxSpare: number;
}): BufferPool<SharedArrayBuffer> {
  return new BufferPool((bytes) => new SharedArrayBuffer(bytes), options);
}

/** A pool of buffers of one thread. */
export function bufferPool(options: {
  minBytes: number;
  maxSpare: number;
}): BufferPool<ArrayBuffer> {
  return new BufferPool((bytes) => Buffer.allocUnsafeSlow(bytes).buffer, options);
}
