import { addAbortSignal, type PassThrough } from "node:stream";
import type { Bucket, File, GetFilesOptions, GetFilesResponse } from "@google-cloud/storage";
import { z } from "zod";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { collectBytes } from "../bytes/byte-string.ts";
import { resolveRange } from "../model/range.ts";
import { BucketCheck } from "./bucket-check.ts";
import { loadSdk, unlessPresent, uploadThrough } from "./cloud.ts";
import { assertObjectKey } from "./object-key.ts";
import type {
  GetObjectOptions,
  ListObjectsOptions,
  ObjectMeta,
  ObjectStore,
  ObjectUpload,
  PutObjectOptions,
} from "./object-store.ts";
import { onePiece } from "./one-piece.ts";
import { TIMEOUT_MS } from "./options.ts";
import { type ObjectPart, PART_BYTES, readParts } from "./read-parts.ts";
import { ATTEMPTS, request, retryRequest, withTimeout } from "./retry.ts";
import { uploadEnded } from "./upload-ended.ts";

/** What the library of Google Cloud is told beside its own configuration and credentials. */
export const GCS_OPTIONS: z.ZodType<{
  endpoint?: string | undefined;
  project_id?: string | undefined;
  timeout_ms?: number | undefined;
}> = z.strictObject({
  endpoint: z.url({ protocol: /^https?$/ }).optional(),
  project_id: z.string().optional(),
  timeout_ms: TIMEOUT_MS,
});

/** How long a request may take, in milliseconds, unless the options say so. */
const REQUEST_MS = 60_000;

/** Keeps objects in a bucket of Google Cloud Storage. */
export class GcsObjectStore implements ObjectStore {
  readonly name: string;
  readonly #bucket: Bucket;
  /** The same bucket, as it is read. */
  readonly #readingBucket: Bucket;
  readonly #prefix: string;
  readonly #timeoutMs: number;
  readonly #check: BucketCheck;

  private constructor(bucket: Bucket, readingBucket: Bucket, prefix: string, timeoutMs: number) {
    this.#bucket = bucket;
    this.#readingBucket = readingBucket;
    this.#prefix = prefix;
    this.#timeoutMs = timeoutMs;
    this.name = `gs://${bucket.name}/${prefix}`;
    // Who may use objects may not always look at a bucket, but list it.
    const query = { prefix, maxResults: 1, autoPaginate: false };
    const look = (options?: AbortOptions) => this.#inTime(() => bucket.getFiles(query), options);
    this.#check = new BucketCheck(this.name, look, statusOf);
  }

  /**
   * Opens a bucket. Nothing is connected yet.
   *
   * @param prefix what every key begins with: empty, or ending with `/`
   * @throws CastoreError `unimplemented` where the library is not installed
   */
  static async open(
    bucket: string,
    prefix: string,
    options: z.output<typeof GCS_OPTIONS>,
  ): Promise<GcsObjectStore> {
    const { endpoint, project_id: projectId, timeout_ms: timeout = REQUEST_MS } = options;
    const name = "@google-cloud/storage";
    const { Storage, IdempotencyStrategy } = await loadSdk(
      name,
      () => import("@google-cloud/storage"),
    );
    const settings = {
      ...(endpoint && { apiEndpoint: endpoint }),
      ...(projectId && { projectId }),
      timeout,
    };
    const storage = new Storage({
      ...settings,
      retryOptions: {
        maxRetries: ATTEMPTS - 1,
        // What is stored is the same whoever stores it, and however often.
        idempotencyStrategy: IdempotencyStrategy.RetryAlways,
      },
    });
    // Where the library itself asks again for a stream, a promise is rejected that nobody can await.
    const { authClient } = storage;
    const reading = new Storage({ ...settings, authClient, retryOptions: { autoRetry: false } });
    return new GcsObjectStore(storage.bucket(bucket), reading.bucket(bucket), prefix, timeout);
  }

  async get(
    key: string,
    options: GetObjectOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const { start, end } = resolveRange(Number.MAX_SAFE_INTEGER, options);
    if (start === end) return (await this.head(key, options)) && onePiece(new Uint8Array(0));
    return await readParts(this.name + key, { start, end }, (from, to, version) => {
      const get = () => this.#getPart(key, from, to, version, options);
      return this.#request("get", key, options, () => retryRequest(get, statusOf, options));
    });
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectMeta | undefined> {
    const file = this.#file(key);
    return await this.#request("look up", key, options, async () => {
      try {
        const [{ size }] = await this.#inTime(() => file.getMetadata(), options);
        return { key, size: Number(size) };
      } catch (error) {
        if (statusOf(error) !== 404) throw error;
        await this.#check.assertExists(options);
        return undefined;
      }
    });
  }

  async put(key: string, data: Uint8Array, options?: PutObjectOptions): Promise<boolean> {
    const file = this.#file(key);
    const contents = Buffer.from(data); // the library goes on with it when it is cancelled
    const settings = { resumable: false, validation: false, ...ifAbsent(options) };
    return await this.#request("store", key, options, () =>
      unlessPresent(
        () => this.#inTime(() => file.save(contents, settings), options),
        statusOf,
        options?.ifAbsent ? PRESENT : [],
      ),
    );
  }

  openUpload(key: string, options?: PutObjectOptions): ObjectUpload {
    const file = this.#file(key);
    const start = (body: PassThrough) => {
      const target = file.createWriteStream({
        resumable: true,
        chunkSize: PART_BYTES,
        validation: false,
        ...ifAbsent(options),
      });
      const stored = new Promise<void>((resolve, reject) => {
        target.once("finish", resolve).once("error", reject);
        body.once("error", (error) => target.destroy(error));
      });
      body.pipe(target);
      const present = options?.ifAbsent ? PRESENT : [];
      const done = this.#request("store", key, undefined, () =>
        unlessPresent(() => stored, statusOf, present),
      );
      // An upload that was not ended is none: the service forgets it.
      return { done, abort: () => void target.destroy(uploadEnded(key)) };
    };
    return uploadThrough(key, start, { ...options, timeoutMs: ATTEMPTS * this.#timeoutMs });
  }

  async *list(prefix: string, options: ListObjectsOptions = {}): AsyncGenerator<ObjectMeta> {
    const { after, signal } = options;
    let query: GetFilesOptions | undefined = {
      prefix: this.#prefix + prefix,
      autoPaginate: false,
      ...(after && { startOffset: this.#prefix + after }),
    };
    while (query !== undefined) {
      const page: GetFilesOptions = query;
      const [files, next]: GetFilesResponse = await this.#request("list", prefix, options, () =>
        this.#inTime(() => this.#bucket.getFiles(page), options),
      );
      for (const { name, metadata } of files) {
        signal?.throwIfAborted();
        const key = name.slice(this.#prefix.length);
        if (after === undefined || key > after) yield { key, size: Number(metadata.size) };
      }
      query = next ?? undefined;
    }
  }

  async delete(key: string, options?: AbortOptions): Promise<void> {
    const file = this.#file(key);
    await this.#request("delete", key, options, async () => {
      try {
        await this.#inTime(() => file.delete(), options);
      } catch (error) {
        if (statusOf(error) !== 404) throw error;
        await this.#check.assertExists(options);
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The library keeps no connections that could be ended.
  }

  async #getPart(
    key: string,
    start: number,
    end: number,
    version: string | undefined,
    options?: AbortOptions,
  ): Promise<ObjectPart | undefined> {
    const file = this.#file(key, this.#readingBucket, version);
    const range = { start, end: end - 1, validation: false, decompress: false };
    const read = async (signal: AbortSignal): Promise<ObjectPart | undefined> => {
      const stream = addAbortSignal(signal, file.createReadStream(range));
      let version: string | undefined;
      stream.once("response", ({ headers }) => {
        version = headers["x-goog-generation"];
      });
      try {
        const data = await collectBytes(stream);
        return { data, version };
      } catch (error) {
        const status = statusOf(error);
        if (status === 404) {
          await this.#check.assertExists(options);
          return undefined;
        }
        if (status === 416) return { data: new Uint8Array(0) }; // it begins behind the end
        throw error;
      }
    };
    return await withTimeout(this.#timeoutMs, read, options);
  }

  /** The library ends a request by itself, mostly. */
  #inTime<T>(run: () => Promise<T>, options?: AbortOptions): Promise<T> {
    return withTimeout(ATTEMPTS * this.#timeoutMs, run, options);
  }

  #file(key: string, bucket: Bucket = this.#bucket, generation?: string): File {
    assertObjectKey(key);
    return bucket.file(this.#prefix + key, generation === undefined ? {} : { generation });
  }

  #request<T>(
    action: string,
    key: string,
    options: AbortOptions | undefined,
    run: () => Promise<T>,
  ): Promise<T> {
    const checked = async () => {
      try {
        return await run();
      } catch (error) {
        if (statusOf(error) === 404) await this.#check.assertExists(options);
        throw error;
      }
    };
    return request(checked, `Cannot ${action} "${this.name}${key}"`, statusOf, options);
  }
}

/** The condition that there is no object yet. */
function ifAbsent(options?: PutObjectOptions): object {
  return options?.ifAbsent ? { preconditionOpts: { ifGenerationMatch: 0 } } : {};
}

/** The answer that says that there is an object. */
const PRESENT = [412];

function statusOf(error: unknown): number | undefined {
  const { code } = error as { code?: unknown };
  return Number(code) || undefined;
}
