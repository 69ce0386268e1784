import type { Http2Session, Http2Stream } from "node:http2";
import { freeMemory } from "../../bytes/free-memory.ts";

/**
 * Writes to an HTTP/2 stream, and keeps each buffer alive until the socket has sent it.
 *
 * When a stream is reset, Node.js completes its writes while the socket still refers to some of their bytes. The
 * garbage collector could free such a buffer, and the socket would send the bytes that reuse its memory.
 */
export class UnsentBytes {
  readonly #stream: Http2Stream;
  /** Stored here because a stream drops its session when it closes. */
  readonly #session: Http2Session | undefined;
  /** Buffers in the order of writing; those before `#sent` have been sent. */
  #buffers: Uint8Array[] = [];
  #sent = 0;
  /** What to free once one of them is sent. */
  readonly #freed = new WeakMap<Uint8Array, readonly Uint8Array[]>();
  #bytes = 0;
  #isGivenUp = false;
  /** Whether writes were completed by the end of the stream, so that the socket may still refer to their bytes. */
  #isCut = false;
  #wake: (() => void) | undefined;

  constructor(stream: Http2Stream) {
    this.#stream = stream;
    this.#session = stream.session;
    stream.once("close", () => this.#onClose());
  }

  /** Number of bytes that have not been sent. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Writes bytes, which must not change from then on. */
  write(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#buffers.push(bytes);
    this.#bytes += bytes.length;
    this.#stream.write(bytes, this.#onSent);
  }

  /**
   * Frees memory that nobody else uses, once everything is sent that was written before.
   *
   * @param memory byte strings, each of them all that is in its buffer. Those of a stream that is reset are not freed
   */
  free(memory: readonly Uint8Array[]): void {
    const last = this.#buffers.at(-1);
    if (last === undefined || this.#sent === this.#buffers.length) this.#free(memory);
    else this.#freed.set(last, [...(this.#freed.get(last) ?? []), ...memory]);
  }

  /**
   * Resolves once at most `limit` bytes are unsent, or {@link giveUp} was called; `undefined` if that is already so.
   * One call at a time.
   */
  untilAtMost(limit: number): Promise<void> | undefined {
    const isDone = () => this.#bytes <= limit || this.#isGivenUp;
    if (isDone()) return undefined;
    return new Promise((resolve) => {
      this.#wake = () => {
        if (isDone()) resolve();
      };
    });
  }

  /** Ends all waiting, as the close of the stream does. */
  giveUp(): void {
    this.#isGivenUp = true;
    this.#wake?.();
  }

  readonly #onSent = (error?: Error | null): void => {
    if (error) return; // the close of the stream handles it
    if (this.#stream.destroyed) this.#isCut = true;
    const bytes = this.#buffers[this.#sent++]!;
    this.#bytes -= bytes.length;
    const freed = this.#freed.get(bytes);
    if (freed !== undefined) this.#free(freed);
    if (this.#sent * 2 > this.#buffers.length) {
      this.#buffers = this.#buffers.slice(this.#sent);
      this.#sent = 0;
    }
    this.#wake?.();
  };

  #free(memory: readonly Uint8Array[]): void {
    if (this.#isCut) return;
    for (const one of memory) freeMemory([one]);
  }

  #onClose(): void {
    const rest = this.#buffers.slice(this.#sent);
    if (rest.length > 0) keepUntilSent(this.#session, rest);
    this.giveUp();
  }
}

/** Unsent buffers of the streams of a session that were reset. */
interface Kept {
  waiting: Uint8Array[];
  isPinging: boolean;
}

const KEPT = new WeakMap<Http2Session, Kept>();

/** Keeps buffers alive until a PING sent after them is answered, or the session ends. */
function keepUntilSent(session: Http2Session | undefined, buffers: Uint8Array[]): void {
  if (session === undefined || session.destroyed) return;
  const kept = KEPT.get(session) ?? { waiting: [], isPinging: false };
  KEPT.set(session, kept);
  kept.waiting.push(...buffers);
  if (!kept.isPinging) ping(session, kept);
}

function ping(session: Http2Session, kept: Kept): void {
  const sentBefore = kept.waiting;
  kept.waiting = [];
  kept.isPinging = true;
  session.ping(() => {
    sentBefore.length = 0;
    kept.isPinging = false;
    if (kept.waiting.length > 0 && !session.destroyed) ping(session, kept);
  });
}
