import type { Form, Held } from "./need.ts";

/** Contents that are in the ring. */
interface Entry {
  readonly key: string;
  readonly start: number;
  readonly end: number;
  readonly form: Form;
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

  /** Longest contents that can be held, in bytes. */
  get longest(): number {
    return this.#buffer.length / 2;
  }

  /** Tells whether contents are held. */
  has(key: string): boolean {
    return this.#entries.has(key);
  }

  /** Returns contents, which are valid until others are written; `undefined` if they are not held. */
  get(key: string): Held | undefined {
    const entry = this.#entries.get(key);
    return entry && { bytes: this.#buffer.subarray(entry.start, entry.end), form: entry.form };
  }

  /** Forgets contents, whose room stays taken until they would be the oldest. */
  delete(key: string): void {
    this.#entries.delete(key);
  }

  /** Copies contents into the ring. Those that are too long, or held, are left out. */
  set(key: string, { bytes, form }: Held): void {
    const { buffer, byteOffset, length } = bytes;
    const whole = Buffer.from(buffer); // of which `copy` takes half as long as `set` where memory is shared
    const write = (target: Buffer) =>
      whole.copy(target, 0, byteOffset, byteOffset + length) === length;
    this.#add(key, { length, form }, write);
  }

  /**
   * Has verified contents written into the ring.
   *
   * @param write fills the target, and returns whether it could
   * @returns them, as {@link get}; `undefined` if they could not be written, are held, or too long
   */
  fill(key: string, length: number, write: (target: Buffer) => boolean): Buffer | undefined {
    return this.#add(key, { length, form: "verified" }, write);
  }

  #add(
    key: string,
    { length, form }: { length: number; form: Form },
    write: (target: Buffer) => boolean,
  ): Buffer | undefined {
    if (length > this.longest || this.#entries.has(key)) return undefined;
    if (this.#next + length > this.#buffer.length) {
      this.#makeRoom(this.#buffer.length); // what is left at the end stays empty for this round
      this.#next = 0;
    }
    const entry = { key, start: this.#next, end: this.#next + length, form };
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
      const entry = this.#queue[this.#oldest]!;
      if (entry.start < this.#next || entry.start >= end) break;
      if (this.#entries.get(entry.key) === entry) this.#entries.delete(entry.key);
    }
    if (this.#oldest < 1024 || this.#oldest < this.#queue.length / 2) return;
    this.#queue = this.#queue.slice(this.#oldest);
    this.#oldest = 0;
  }
}
