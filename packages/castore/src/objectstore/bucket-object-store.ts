import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError } from "../model/errors.ts";
import { resolveRange } from "../model/range.ts";
import { retryRequest } from "../policy/retry.ts";
import { withTimeout } from "../policy/timeout.ts";
import type { Bucket, Failure } from "./bucket.ts";
import { MultipartUpload } from "./multipart-upload.ts";
import { assertObjectKey } from "./object-key.ts";
import type {
  DeleteObjectOptions,
  GetObjectOptions,
  ListObjectsOptions,
  ObjectContents,
  ObjectHead,
  ObjectMeta,
  ObjectStore,
  ObjectUpload,
} from "./object-store.ts";
import { contentsOf, readParts } from "./read-parts.ts";

/** How long one request may take, in milliseconds, unless an option says so. */
const REQUEST_MS = 60_000;

/** Keeps objects in a bucket of a cloud: repeats requests, bounds their time, cuts uploads into parts, and words errors. */
export class BucketObjectStore implements ObjectStore {
  readonly name: string;
  readonly #bucket: Bucket;
  readonly #prefix: string;
  readonly #timeoutMs: number;
  #isBucketKnown = false;

  /**
   * @param bucket disposed of with the store
   * @param prefix what every key begins with: empty, or ending with `/`
   */
  constructor(bucket: Bucket, prefix: string, timeoutMs: number = REQUEST_MS) {
    this.name = `${bucket.name}/${prefix}`;
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.#timeoutMs = timeoutMs;
  }

  async get(key: string, options: GetObjectOptions = {}): Promise<ObjectContents | undefined> {
    const { start, end } = resolveRange(Number.MAX_SAFE_INTEGER, options);
    const wholeKey = this.#keyOf(key);
    if (start === end) {
      const found = await this.head(key, options);
      return found && contentsOf(new Uint8Array(0), found.version);
    }
    return await readParts(this.name + key, { start, end }, (start, end, version) => {
      const get = async (signal: AbortSignal) => {
        const part = await this.#bucket.get(wholeKey, { start, end, version }, signal);
        if (part === undefined) await this.#assertBucket(signal);
        return part;
      };
      return this.#request("get", key, get, options);
    });
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectHead | undefined> {
    const wholeKey = this.#keyOf(key);
    const look = async (signal: AbortSignal) => {
      const found = await this.#bucket.head(wholeKey, signal);
      if (found === undefined) await this.#assertBucket(signal);
      return found && { key, ...found };
    };
    return await this.#request("look up", key, look, options);
  }

  async put(key: string, data: Uint8Array, options?: AbortOptions): Promise<void> {
    const wholeKey = this.#keyOf(key);
    options?.signal?.throwIfAborted();
    // An attempt that is late or cancelled may go on reading it, when the caller has its own bytes back.
    const contents = Buffer.from(data);
    const put = (signal: AbortSignal) => this.#bucket.put(wholeKey, contents, signal);
    await this.#request("store", key, put, options);
  }

  openUpload(key: string, options?: AbortOptions): ObjectUpload {
    return new MultipartUpload(key, options, {
      bucket: this.#bucket,
      wholeKey: this.#keyOf(key),
      timeoutMs: this.#timeoutMs,
      request: (run, options) => this.#request("store", key, run, options),
    });
  }

  async *list(prefix: string, options: ListObjectsOptions = {}): AsyncGenerator<ObjectMeta> {
    const { after, signal } = options;
    let token: string | undefined;
    do {
      const from = { token, after: after && this.#prefix + after };
      const list = (signal: AbortSignal) => this.#bucket.list(this.#prefix + prefix, from, signal);
      const page = await this.#request("list", prefix, list, options);
      for (const { key: wholeKey, size } of page.objects) {
        signal?.throwIfAborted();
        const key = wholeKey.slice(this.#prefix.length);
        if (after === undefined || key > after) yield { key, size };
      }
      token = page.next;
    } while (token !== undefined);
  }

  async delete(key: string, options: DeleteObjectOptions = {}): Promise<void> {
    const wholeKey = this.#keyOf(key);
    const remove = async (signal: AbortSignal) => {
      const isFound = await this.#bucket.delete(wholeKey, options.version, signal);
      if (!isFound) await this.#assertBucket(signal);
    };
    await this.#request("delete", key, remove, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#bucket[Symbol.asyncDispose]();
  }

  #keyOf(key: string): string {
    assertObjectKey(key);
    return this.#prefix + key;
  }

  /** Makes a request, repeatedly where that may help. */
  async #request<T>(
    action: string,
    key: string,
    run: (signal: AbortSignal) => Promise<T>,
    options: AbortOptions = {},
  ): Promise<T> {
    const { signal } = options;
    const attempt = async () => {
      try {
        return await withTimeout(this.#timeoutMs, run, { signal });
      } catch (error) {
        signal?.throwIfAborted();
        const { code, reason } = await this.#explain(error, options);
        const text = `Cannot ${action} "${this.name}${key}": ${reason}`;
        throw new CastoreError(code, text, { cause: error });
      }
    };
    return await retryRequest(attempt, { signal });
  }

  async #explain(error: unknown, { signal }: AbortOptions): Promise<Failure> {
    if (error instanceof CastoreError) return { code: error.code, reason: error.message };
    const failure = this.#bucket.failureOf(error);
    if (!failure.isBare || failure.code === "unavailable") return failure;
    try {
      await withTimeout(this.#timeoutMs, (signal) => this.#bucket.look(signal), { signal });
      return failure;
    } catch (error) {
      signal?.throwIfAborted();
      const found = error instanceof CastoreError ? failure : this.#bucket.failureOf(error);
      return found.isBare ? failure : found;
    }
  }

  /**
   * Makes sure, once, that what is absent is not absent because there is no bucket. A bucket that may not be listed is
   * believed to exist.
   */
  async #assertBucket(signal: AbortSignal): Promise<void> {
    if (this.#isBucketKnown) return;
    try {
      await this.#bucket.look(signal);
    } catch (error) {
      if (this.#bucket.failureOf(error).code !== "permission_denied") throw error;
    }
    this.#isBucketKnown = true;
  }
}
