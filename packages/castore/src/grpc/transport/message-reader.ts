import type { Readable } from "node:stream";
import { Code } from "@connectrpc/connect";
import { concatBytes } from "../../bytes/byte-string.ts";
import { RpcError } from "./rpc-error.ts";

/** Length of the prefix of a gRPC message in bytes: the flag for compression, and the length. */
const FRAME_HEADER_LENGTH = 5;

/** Tag of field 1, bytes. */
const DATA_TAG = 0x0a;

/** Longest varint of the length of the data, in bytes: enough for 256 MiB. */
const LENGTH_BYTES = 4;

/** Messages up to this many bytes need no reservation: the stream may buffer as much anyway. */
const UNRESERVED_BYTES = 64 * 1024;

/** The stream is paused while more than this many bytes are buffered. */
const WAITING_BYTES = 512 * 1024;

/** Memory overhead of a piece in bytes, which bounds the number of small and empty pieces. */
const PIECE_BYTES = 128;

/**
 * Data is returned in pieces of about this many bytes. HTTP/2 delivers frames of 16 KiB: a promise for each costs more
 * than a copy, and BLAKE3 hashes such short pieces at a third of its speed.
 */
const GATHERED_BYTES = 256 * 1024;

/** Options of {@link MessageReader}. */
export interface MessageReaderOptions {
  /** Maximum length of a message in bytes. */
  maxBytes: number;
  /**
   * Extracts the data of a message whose only field is `bytes data = 1`. If set, the reader returns data instead of
   * messages, in pieces as they arrive: for streams whose message borders carry no meaning.
   */
  dataOf?: ((message: Uint8Array) => Uint8Array) | undefined;
  /**
   * Tells whether the body was complete when the stream ended: Node.js also ends streams that were reset. If not,
   * {@link MessageReader.fail} has to report it. Default: it was complete.
   */
  isWhole?: () => boolean;
  /** Whether the stream is read only on demand. Default: it is read ahead, up to a limit. */
  isLazy?: boolean;
  /**
   * Reserves memory before a message of more than 64 KiB is assembled. If it rejects, reading fails with the same
   * error. Default: none is reserved.
   */
  reserve?: (bytes: number) => Promise<void>;
}

/**
 * Parses the messages of an uncompressed gRPC body as it arrives. The messages may share memory with the pieces of the
 * stream. Applies backpressure: a stream that is faster than the reader is paused.
 *
 * Reading throws RpcError `resource_exhausted` for a message that is too long, `internal` for a compressed one,
 * `invalid_argument` if the body ends within one, and the error passed to {@link fail}.
 */
export class MessageReader implements AsyncIterableIterator<Uint8Array> {
  /** Number of bytes of the body that have arrived. */
  bytes = 0;

  readonly #stream: Readable;
  readonly #maxBytes: number;
  readonly #dataOf: ((message: Uint8Array) => Uint8Array) | undefined;
  readonly #isWhole: () => boolean;
  readonly #reserve: ((bytes: number) => Promise<void>) | undefined;
  /** Bytes that arrived after the prefix of a message whose memory is not reserved yet. */
  #held: Uint8Array | undefined;
  #isReserving = false;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #ended = false;
  #failure: { readonly error: unknown } | undefined;
  #reader: PromiseWithResolvers<IteratorResult<Uint8Array>> | undefined;
  /** Set while a reader waits for more data of the same turn of the event loop. */
  #gathering: NodeJS.Immediate | undefined;
  #paused = false;

  /** An incomplete prefix of a message. */
  readonly #head: Uint8Array = new Uint8Array(FRAME_HEADER_LENGTH + 1 + LENGTH_BYTES);
  #headLength = 0;
  /** Number of missing bytes of the current message; 0 between messages. */
  #missing = 0;
  /** Buffer in which the current message is assembled, unless it is returned in pieces. */
  #message: Uint8Array | undefined;

  constructor(stream: Readable, options: MessageReaderOptions) {
    this.#stream = stream;
    this.#maxBytes = options.maxBytes;
    this.#dataOf = options.dataOf;
    this.#isWhole = options.isWhole ?? (() => true);
    this.#reserve = options.reserve;
    stream.on("data", (chunk: Uint8Array) => this.#onData(chunk));
    stream.once("end", () => this.#onEnd());
    if (options.isLazy) this.#pause();
  }

  /** Whether a call of {@link next} is pending. */
  get isAwaited(): boolean {
    return this.#reader !== undefined;
  }

  /** Whether the body has ended. Messages may still be buffered. */
  get ended(): boolean {
    return this.#ended;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Uint8Array>> {
    const value = this.#take();
    if (value !== undefined) return Promise.resolve({ done: false, value });
    if (this.#failure !== undefined) return Promise.reject(this.#failure.error);
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    if (this.#paused && this.#waitingBytes <= WAITING_BYTES / 2) this.#resume();
    this.#reader = Promise.withResolvers();
    return this.#reader.promise;
  }

  /** Takes everything that has come and waits, at least one; `undefined` at the end of the body. */
  async nextWaiting(): Promise<readonly Uint8Array[] | undefined> {
    if (this.#waiting.length === 0) {
      const { done, value } = await this.next();
      if (done) return undefined;
      this.#waiting.unshift(value);
    }
    const values = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    if (this.#paused && this.#failure === undefined) this.#resume();
    return values;
  }

  /** Ends reading, and pauses the stream. */
  async return(): Promise<IteratorResult<Uint8Array>> {
    this.#waiting.length = 0;
    this.#waitingBytes = 0;
    this.fail(undefined);
    return { done: true, value: undefined };
  }

  /** Whether the body, or reading, has ended. */
  get isOver(): boolean {
    return this.#ended || this.#failure !== undefined;
  }

  /** Makes reading fail once the buffered messages are read. Does nothing after the end. */
  fail(error: unknown): void {
    if (this.isOver) return;
    this.#answer();
    this.#failure = { error };
    this.#pause();
    this.#reader?.reject(error);
    this.#reader = undefined;
  }

  #pause(): void {
    this.#paused = true;
    this.#stream.pause();
  }

  #resume(): void {
    if (this.#failure !== undefined) return;
    if (this.#isReserving) return;
    this.#paused = false;
    this.#stream.resume();
  }

  /** Pauses the stream until memory for a message is reserved. */
  #waitForRoom(length: number): void {
    if (this.#reserve === undefined || length <= UNRESERVED_BYTES) return;
    this.#isReserving = true;
    this.#pause();
    this.#reserve(length).then(
      () => {
        const held = this.#held;
        this.#held = undefined;
        this.#isReserving = false;
        if (held !== undefined) this.#parse(held);
        if (this.#waitingBytes <= WAITING_BYTES) this.#resume();
      },
      (error) => this.fail(error),
    );
  }

  #onData(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
    this.bytes += chunk.length;
    this.#parse(chunk);
  }

  #parse(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
    try {
      for (let at = 0; at < chunk.length; ) {
        if (this.#isReserving) {
          this.#held = chunk.subarray(at);
          return;
        }
        at = this.#missing === 0 ? this.#begin(chunk, at) : this.#goOn(chunk, at);
      }
    } catch (error) {
      this.fail(error);
    }
    if (this.#waitingBytes > WAITING_BYTES && !this.#paused) this.#pause();
  }

  #onEnd(): void {
    if (!this.#isWhole()) return;
    if (this.#headLength > 0 || this.#missing > 0) {
      this.fail(new RpcError(Code.InvalidArgument, "the stream ended within a message"));
      return;
    }
    if (this.#failure !== undefined) return;
    this.#answer();
    this.#ended = true;
    this.#reader?.resolve({ done: true, value: undefined });
    this.#reader = undefined;
  }

  /** Removes and returns the next buffered message or data; `undefined` if there is none. */
  #take(): Uint8Array | undefined {
    let count = 1;
    if (this.#dataOf !== undefined) {
      let length = this.#waiting[0]?.length ?? 0;
      while (count < this.#waiting.length && length < GATHERED_BYTES) {
        length += this.#waiting[count++]!.length;
      }
    }
    const parts = this.#waiting.splice(0, count);
    if (parts.length === 0) return undefined;
    const value = concatBytes(parts);
    this.#waitingBytes -= value.length + parts.length * PIECE_BYTES;
    if (this.#paused && this.#waitingBytes <= WAITING_BYTES / 2) this.#resume();
    return value;
  }

  #give(value: Uint8Array): void {
    this.#waiting.push(value);
    this.#waitingBytes += value.length + PIECE_BYTES;
    if (this.#reader === undefined) return;
    if (this.#dataOf === undefined || this.#waitingBytes >= GATHERED_BYTES) this.#answer();
    else this.#gathering ??= setImmediate(() => this.#answer());
  }

  /** Resolves a pending read with the next buffered message or data. */
  #answer(): void {
    clearImmediate(this.#gathering);
    this.#gathering = undefined;
    const reader = this.#reader;
    const value = reader && this.#take();
    if (value === undefined) return;
    this.#reader = undefined;
    reader!.resolve({ done: false, value });
  }

  /** Reads the prefix of a message, and returns the position after it. */
  #begin(chunk: Uint8Array, start: number): number {
    let at = start;
    if (this.#headLength === 0) {
      const taken = this.#takeHead(chunk, at, chunk.length - at);
      if (taken > 0) return at + taken;
    }
    while (at < chunk.length) {
      this.#head[this.#headLength++] = chunk[at++]!;
      const taken = this.#takeHead(this.#head, 0, this.#headLength);
      if (taken === 0) continue;
      const part = this.#head.slice(taken, this.#headLength);
      this.#headLength = 0;
      if (part.length > 0) this.#goOn(part, 0);
      break;
    }
    return at;
  }

  /** Starts a message, and returns the length of its prefix; 0 if the prefix is incomplete. */
  #takeHead(bytes: Uint8Array, at: number, available: number): number {
    if (available < FRAME_HEADER_LENGTH) return 0;
    const length = messageLength(bytes, at, this.#maxBytes);
    if (length === 0) {
      if (this.#dataOf === undefined) this.#give(new Uint8Array(0));
      return FRAME_HEADER_LENGTH;
    }
    if (this.#dataOf !== undefined) {
      const start = at + FRAME_HEADER_LENGTH;
      const prefix = dataPrefix(bytes, start, available - FRAME_HEADER_LENGTH, length);
      if (prefix === undefined) return 0;
      if (prefix > 0) {
        this.#missing = length - prefix;
        return FRAME_HEADER_LENGTH + prefix;
      }
    }
    this.#missing = length;
    this.#message = WHOLE;
    this.#waitForRoom(length);
    return FRAME_HEADER_LENGTH;
  }

  /** Reads more of the current message, and returns the position after it. */
  #goOn(chunk: Uint8Array, at: number): number {
    const end = Math.min(at + this.#missing, chunk.length);
    const part = chunk.subarray(at, end);
    if (this.#message === undefined) {
      this.#missing -= part.length;
      this.#give(part);
      return end;
    }
    if (this.#message === WHOLE) {
      if (part.length === this.#missing) {
        this.#missing = 0;
        this.#giveMessage(part);
        return end;
      }
      this.#message = Buffer.allocUnsafeSlow(this.#missing);
    }
    this.#message.set(part, this.#message.length - this.#missing);
    this.#missing -= part.length;
    if (this.#missing === 0) this.#giveMessage(this.#message);
    return end;
  }

  #giveMessage(message: Uint8Array): void {
    this.#message = undefined;
    if (this.#dataOf === undefined) {
      this.#give(message);
      return;
    }
    const data = this.#dataOf(message);
    if (data.length > 0) this.#give(data);
  }
}

/** Marks a message that is returned whole, until its first piece shows that it has to be assembled. */
const WHOLE = new Uint8Array(0);

function messageLength(bytes: Uint8Array, at: number, maxBytes: number): number {
  const high = bytes[at + 1]! * 2 ** 24;
  const length = high + ((bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!);
  if (length > maxBytes) {
    throw new RpcError(
      Code.ResourceExhausted,
      `message of ${length} bytes is larger than the limit of ${maxBytes}`,
    );
  }
  if (bytes[at] === 0) return length;
  throw new RpcError(
    Code.Internal,
    "received a compressed message, though no compression was announced",
  );
}

/**
 * Returns the number of bytes before the data in a message of `length` bytes that has only data; 0 for any other
 * message, `undefined` if too few bytes are available.
 */
function dataPrefix(
  bytes: Uint8Array,
  start: number,
  available: number,
  length: number,
): number | undefined {
  let dataLength = 0;
  for (let count = 0; count <= LENGTH_BYTES; count++) {
    if (count === length) return 0;
    if (count >= available) return undefined;
    const byte = bytes[start + count]!;
    if (count === 0) {
      if (byte !== DATA_TAG) return 0;
      continue;
    }
    dataLength += (byte & 0x7f) << (7 * (count - 1));
    if (byte < 0x80) return count + 1 + dataLength === length ? count + 1 : 0;
  }
  return 0;
}
