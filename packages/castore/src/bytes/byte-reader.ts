/** Takes bytes from a stream, whose pieces may only be lent. Disposing of it ends the stream. */
export class ByteReader implements AsyncDisposable {
  /** How many bytes were taken. */
  offset = 0;
  /** What to throw where something else was expected, by reason and the offset of the byte where. */
  readonly #refuse: (reason: string, at: number) => Error;
  readonly #iterator: AsyncIterator<Uint8Array>;
  #data: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor(stream: AsyncIterable<Uint8Array>, refuse: (reason: string, at: number) => Error) {
    this.#iterator = stream[Symbol.asyncIterator]();
    this.#refuse = refuse;
  }

  /** What to throw where something else was expected. */
  refusal(reason: string, at: number = this.offset): Error {
    return this.#refuse(reason, at);
  }

  /** Takes these bytes if they come next, and have come already. */
  takeIf(expected: Buffer): boolean {
    const end = this.#at + expected.length;
    if (end > this.#data.length) return false;
    if (this.#data.compare(expected, 0, expected.length, this.#at, end) !== 0) return false;
    this.#at = end;
    this.offset += expected.length;
    return true;
  }

  /** So many bytes, which are lent until others are asked for. Throws a refusal if there are fewer. */
  async take(length: number): Promise<Buffer> {
    if (this.#data.length - this.#at < length) await this.#need(length);
    const taken = this.#data.subarray(this.#at, this.#at + length);
    this.#at += length;
    this.offset += length;
    return taken;
  }

  /** So many bytes, as they come. Throws a refusal if there are fewer. */
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

  /** Goes past so many bytes. Throws a refusal if there are fewer. */
  async skip(length: number): Promise<void> {
    if (length > 0) for await (const _ of this.contents(length));
  }

  /** Whether the stream has ended. */
  async isAtEnd(): Promise<boolean> {
    while (this.#at === this.#data.length) {
      const { done, value } = await this.#iterator.next();
      if (done) return true;
      [this.#data, this.#at] = [asBuffer(value), 0];
    }
    return false;
  }

  /** Goes to the end of the stream, whatever comes. */
  async skipRest(): Promise<void> {
    while (!(await this.isAtEnd())) {
      this.offset += this.#data.length - this.#at;
      this.#at = this.#data.length;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#iterator.return?.();
  }

  /** Waits until so many bytes have come. */
  async #need(length: number): Promise<void> {
    const parts = [this.#data.subarray(this.#at)];
    for (let have = parts[0]!.length; have < length; have += this.#data.length) {
      parts[parts.length - 1] = Buffer.from(parts.at(-1)!); // it was only lent
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

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
