import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError } from "../model/errors.ts";
import { withTimeout } from "../policy/timeout.ts";
import type { Bucket, BucketUpload } from "./bucket.ts";
import type { ObjectUpload } from "./object-store.ts";
import { PART_BYTES } from "./read-parts.ts";

/** Where an upload goes. */
export interface UploadTarget {
  readonly bucket: Bucket;
  readonly wholeKey: string;
  /** How long one request may take. */
  readonly timeoutMs: number;
  /** Makes a request, repeatedly where that may help. */
  readonly request: <T>(
    run: (signal: AbortSignal) => Promise<T>,
    options: AbortOptions,
  ) => Promise<T>;
}

/** Cuts an object into parts, and sends them. One that is not longer than a part is stored by one request. */
export class MultipartUpload implements ObjectUpload {
  readonly #key: string;
  readonly #target: UploadTarget;
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  /** Bytes that are not sent yet, and how many. */
  #pieces: Buffer[] = [];
  #length = 0;
  #parts = 0;
  #offset = 0;
  /** Parts that are being sent, the oldest first. */
  readonly #sending: Promise<void>[] = [];
  /** Requests that go on, also where nobody waits for them any more. */
  readonly #running = new Set<Promise<unknown>>();
  #beginning: Promise<BucketUpload> | undefined;
  /** What was begun, which may be more than one where an answer got lost, and is not finished. */
  readonly #begun = new Set<BucketUpload>();
  #closed: Promise<void> | undefined;
  #isOver = false;
  #failure: { readonly error: unknown } | undefined;

  constructor(key: string, options: AbortOptions | undefined, target: UploadTarget) {
    this.#key = key;
    this.#target = target;
    const { signal } = this.#stop;
    this.#signal = options?.signal ? AbortSignal.any([options.signal, signal]) : signal;
  }

  async write(data: Uint8Array): Promise<void> {
    if (this.#closed !== undefined) throw this.#ended();
    this.#assertGoingOn();
    this.#pieces.push(Buffer.from(data)); // memory of its own: an SDK may read it for as long as it likes
    this.#length += data.length;
    try {
      // Longer than a part, so that the last one is never empty.
      while (this.#length > PART_BYTES) await this.#send(this.#take(PART_BYTES), false);
    } catch (error) {
      this.#failure ??= { error };
      throw error;
    }
  }

  close(): Promise<void> {
    this.#closed ??= this.#finish();
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed === undefined) this.#stop.abort(this.#ended());
    await this.#closed?.catch(() => undefined); // close() has told
    this.#stop.abort(this.#ended());
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
    for (const upload of this.#begun) {
      const abandon = (signal: AbortSignal) => upload.abandon(signal);
      await this.#target.request(abandon, {}).catch(() => undefined); // what stays is not seen
    }
    this.#begun.clear();
    this.#isOver = true;
  }

  async #finish(): Promise<void> {
    this.#assertGoingOn();
    const rest = this.#take(this.#length);
    if (this.#beginning === undefined) {
      const { bucket, wholeKey } = this.#target;
      return await this.#request((signal) => bucket.put(wholeKey, rest, signal));
    }
    await this.#send(rest, true);
    await Promise.all(this.#sending);
    const upload = await this.#beginning;
    await this.#request((signal) => upload.finish(signal));
    this.#begun.delete(upload);
  }

  async #send(data: Buffer, isLast: boolean): Promise<void> {
    this.#beginning ??= this.#begin();
    const upload = await this.#beginning;
    if (this.#sending.length === this.#target.bucket.partsAtOnce) await this.#sending.shift();
    const part = { index: this.#parts, data, offset: this.#offset, isLast };
    this.#parts += 1;
    this.#offset += data.length;
    const sent = this.#request((signal) => this.#track(upload.send(part, signal)));
    sent.catch(() => undefined); // awaited in its turn
    this.#sending.push(sent);
  }

  /** Begins it. Not cancelled with the rest: what begins has to be known, or it could not be abandoned. */
  #begin(): Promise<BucketUpload> {
    const { bucket, wholeKey, timeoutMs } = this.#target;
    const begin = async (signal: AbortSignal) => {
      const upload = await bucket.beginUpload(wholeKey, signal);
      if (this.#isOver) await upload.abandon(signal);
      else this.#begun.add(upload);
      return upload;
    };
    const begun = this.#request(() => this.#track(withTimeout(timeoutMs, begin)));
    begun.catch(() => undefined); // awaited by whoever sends the first part
    return begun;
  }

  #request<T>(run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.#target.request(run, { signal: this.#signal });
  }

  #track<T>(running: Promise<T>): Promise<T> {
    const over: Promise<unknown> = running.then(
      () => this.#running.delete(over),
      () => this.#running.delete(over),
    );
    this.#running.add(over);
    return running;
  }

  /** Takes bytes off the front of what is not sent yet. */
  #take(length: number): Buffer {
    const [only = Buffer.alloc(0)] = this.#pieces;
    const all = this.#pieces.length > 1 ? Buffer.concat(this.#pieces) : only;
    this.#pieces = [all.subarray(length)];
    this.#length -= length;
    return all.subarray(0, length);
  }

  #assertGoingOn(): void {
    this.#signal.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #ended(): CastoreError {
    return new CastoreError(
      "invalid_argument",
      `Cannot store "${this.#key}": the upload has ended`,
    );
  }
}
