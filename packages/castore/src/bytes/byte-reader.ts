import { asBuffer } from "./byte-string.ts";

/** Reads bytes from a stream whose pieces may be valid only until the next one. Disposing ends the stream. */
export class ByteReader implements AsyncDisposable {
  /** Number of bytes read. */
  offset = 0;
  /** Creates the error for unexpected bytes, from the reason and their offset. */
  readonly #refuse: (reason: string, at: number) => Error;
  readonly #iterator: AsyncIterator<Uint8Array>;
  #data: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor(stream: AsyncIterable<Uint8Array>, refuse: (reason: string, at: number) => Error) {
    this.#iterator = stream[Symbol.asyncIterator]();
    this.#refuse = refuse;
  }

  /** Creates the error for unexpected bytes. */
  refusal(reason: string, at: number = this.offset): Error {
    return this.#refuse(reason, at);
  }

  /** Skips these bytes if they come next and are buffered; tells whether it did. */
  takeIf(expected: Buffer): boolean {
    const end = this.#at + expected.length;
    if (end > this.#data.length) return false;
    if (this.#data.compare(expected, 0, expected.length, this.#at, end) !== 0) return false;
    this.#at = end;
    this.offset += expected.length;
    return true;
  }

  /** Reads a number of bytes, valid until the next read. Throws a refusal if there are fewer. */
  async take(length: number): Promise<Buffer> {
    if (this.#data.length - this.#at < length) await this.#need(length);
    const taken = this.#data.subarray(this.#at, this.#at + length);
    this.#at += length;
    this.offset += length;
    return taken;
  }

  /** Streams a number of bytes. Throws a refusal if there are fewer. */
  async *contents(length: number): AsyncGenerator<Uint8Array> {
    for (let missing = length; missing > 0; ) {
      if (this.#at === this.#data.length) await this.#more(missing);
      const data = this.#data.subarray(this.#at, this.#at + missing);
      this.#at += data.length;
      this.offset += data.length;
      missing -= data.length;
      yield data;
    }
  }

  /** Skips a number of bytes. Throws a refusal if there are fewer. */
  async skip(length: number): Promise<void> {
    if (length > 0) for await (const _ of this.contents(length));
  }

  /** Tells whether the stream has ended. */
  async isAtEnd(): Promise<boolean> {
    while (this.#at === this.#data.length) {
      const { done, value } = await this.#iterator.next();
      if (done) return true;
      [this.#data, this.#at] = [asBuffer(value), 0];
    }
    return false;
  }

  /** Reads and discards the rest of the stream. */
  async skipRest(): Promise<void> {
    while (!(await this.isAtEnd())) {
      this.offset += this.#data.length - this.#at;
      this.#at = this.#data.length;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#iterator.return?.();
  }

  /** Waits until a number of bytes are buffered. */
  async #need(length: number): Promise<void> {
    const parts = [this.#data.subarray(this.#at)];
    for (let have = parts[0]!.length; have < length; have += this.#data.length) {
      parts[parts.length - 1] = Buffer.from(parts.at(-1)!); // the stream may reuse it
      await this.#more(length - have);
      parts.push(this.#data);
    }
    [this.#data, this.#at] = [Buffer.concat(parts), 0];
  }

  async #more(missing: number): Promise<void> {
    const { done, value } = await this.#iterator.next();
    if (done) throw this.refusal(`expected ${missing} more bytes, found the end`);
    [this.#data, this.#at] = [asBuffer(value), 0];
  }
}
