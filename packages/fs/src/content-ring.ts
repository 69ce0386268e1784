/** Contents that are in the ring. */
interface Entry {
  readonly key: string;
  readonly start: number;
  readonly end: number;
}

/**
 * Holds contents in one buffer that never grows: the oldest make room for new ones. Reads that were fetched ahead come soon
 * or never, and buffers that come and go would leave several times as much in memory.
 */
export class ContentRing {
  readonly #buffer: Buffer;
  readonly #entries = new Map<string, Entry>();
  /** The same entries, the oldest first. */
  #queue: Entry[] = [];
  #oldest = 0;
  #next = 0;

  /** @param bytes length of the buffer */
  constructor(bytes: number) {
    this.#buffer = Buffer.allocUnsafeSlow(bytes);
  }

  /** Tells whether contents are held. */
  has(key: string): boolean {
    return this.#entries.has(key);
  }

  /** Returns contents, which are valid until the next {@link set}; `undefined` if they are not held. */
  get(key: string): Uint8Array | undefined {
    const entry = this.#entries.get(key);
    return entry && this.#buffer.subarray(entry.start, entry.end);
  }

  /** Copies contents into the ring. Contents longer than half of it, and those that are held, are left out. */
  set(key: string, contents: Uint8Array): void {
    this.fill(key, contents.length, (target) => {
      target.set(contents);
      return true;
    });
  }

  /**
   * Has contents written into the ring.
   *
   * @param write fills the target, and returns whether it could
   * @returns them, as {@link get}; `undefined` if they could not be written, are held, or longer than half of the ring
   */
  fill(key: string, length: number, write: (target: Buffer) => boolean): Buffer | undefined {
    if (length > this.#buffer.length / 2 || this.#entries.has(key)) return undefined;
    if (this.#next + length > this.#buffer.length) {
      this.#makeRoom(this.#buffer.length); // what is left at the end stays empty for this round
      this.#next = 0;
    }
    const entry = { key, start: this.#next, end: this.#next + length };
    this.#makeRoom(entry.end);
    const target = this.#buffer.subarray(entry.start, entry.end);
    if (!write(target)) return undefined;
    this.#entries.set(key, entry);
    this.#queue.push(entry);
    this.#next = entry.end;
    return target;
  }

  /** Drops the entries between the end of the newest one and a position. */
  #makeRoom(end: number): void {
    for (; this.#oldest < this.#queue.length; this.#oldest++) {
      const { key, start } = this.#queue[this.#oldest]!;
      if (start < this.#next || start >= end) break;
      this.#entries.delete(key);
    }
    if (this.#oldest < 1024 || this.#oldest < this.#queue.length / 2) return;
    this.#queue = this.#queue.slice(this.#oldest);
    this.#oldest = 0;
  }
}
