import type { Bucket, GetFilesOptions, GetFilesResponse } from "@google-cloud/storage";
import { z } from "zod";
import { resolveRange } from "../blobservice/chunked-reader.ts";
import type { AbortOptions } from "../options.ts";
import {
  ATTEMPTS,
  loadSdk,
  PART_BYTES,
  request,
  retryUnavailable,
  unlessPresent,
  uploadThrough,
} from "./cloud.ts";
import { assertObjectKey } from "./object-key.ts";
import type {
  GetObjectOptions,
  ListObjectsOptions,
  ObjectMeta,
  ObjectStore,
  ObjectUpload,
  PutObjectOptions,
} from "./object-store.ts";

/** What the library of Google Cloud is told beside its own configuration and credentials. */
export const GCS_OPTIONS: z.ZodType<{
  endpoint?: string | undefined;
  project_id?: string | undefined;
}> = z.strictObject({
  endpoint: z.url({ protocol: /^https?$/ }).optional(),
  project_id: z.string().optional(),
});

/** Keeps objects in a bucket of Google Cloud Storage. */
export class GcsObjectStore implements ObjectStore {
  readonly name: string;
  readonly #bucket: Bucket;
  readonly #prefix: string;

  private constructor(bucket: Bucket, prefix: string) {
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.name = `gs://${bucket.name}/${prefix}`;
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
    { endpoint, project_id: projectId }: z.output<typeof GCS_OPTIONS>,
  ): Promise<GcsObjectStore> {
    const name = "@google-cloud/storage";
    const { Storage, IdempotencyStrategy } = await loadSdk(
      name,
      () => import("@google-cloud/storage"),
    );
    const storage = new Storage({
      ...(endpoint && { apiEndpoint: endpoint }),
      ...(projectId && { projectId }),
      retryOptions: {
        maxRetries: ATTEMPTS - 1,
        // What is stored is the same whoever stores it, and however often.
        idempotencyStrategy: IdempotencyStrategy.RetryAlways,
      },
    });
    return new GcsObjectStore(storage.bucket(bucket), prefix);
  }

  async get(
    key: string,
    options: GetObjectOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const { start, end } = resolveRange(Number.MAX_SAFE_INTEGER, options);
    const found = await this.head(key, options);
    if (found === undefined) return undefined;
    return this.#read(key, start, Math.min(end, found.size), options);
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectMeta | undefined> {
    const file = this.#file(key);
    return await this.#request("look up", key, options, async () => {
      try {
        const [{ size }] = await file.getMetadata();
        return { key, size: Number(size) };
      } catch (error) {
        if (statusOf(error) === 404) return undefined;
        throw error;
      }
    });
  }

  async put(key: string, data: Uint8Array, options?: PutObjectOptions): Promise<boolean> {
    const file = this.#file(key);
    const store = () =>
      unlessPresent(
        () =>
          file.save(Buffer.from(data), {
            resumable: false,
            validation: false,
            ...ifAbsent(options),
          }),
        statusOf,
        PRESENT,
      );
    return await retryUnavailable(() => this.#request("store", key, options, store), options);
  }

  openUpload(key: string, options?: PutObjectOptions): ObjectUpload {
    const file = this.#file(key);
    return uploadThrough(key, (body) => {
      const target = file.createWriteStream({
        resumable: true,
        chunkSize: PART_BYTES,
        validation: false,
        ...ifAbsent(options),
      });
      const stop = () => body.destroy(options?.signal?.reason);
      options?.signal?.addEventListener("abort", stop, { once: true });
      const stored = new Promise<void>((resolve, reject) => {
        target.once("finish", resolve).once("error", reject);
        body.once("error", (error) => {
          target.destroy(error);
          reject(error);
        });
      });
      body.pipe(target);
      const done = this.#request("store", key, options, () =>
        unlessPresent(() => stored, statusOf, PRESENT),
      ).finally(() => options?.signal?.removeEventListener("abort", stop));
      // An upload that was not ended is none: the service forgets it.
      return { done, abort: async () => void target.destroy() };
    });
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
        this.#bucket.getFiles(page),
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
    await this.#request("delete", key, options, () => file.delete({ ignoreNotFound: true }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The library keeps no connections that could be ended.
  }

  /** Reads range by range: a stream of the library that is not read to its end keeps its connection. */
  async *#read(
    key: string,
    start: number,
    end: number,
    options?: AbortOptions,
  ): AsyncGenerator<Uint8Array> {
    const file = this.#file(key);
    for (let at = start; at < end; at += PART_BYTES) {
      const range = { start: at, end: Math.min(at + PART_BYTES, end) - 1, validation: false };
      const read = () => this.#request("get", key, options, () => file.download(range));
      const [data] = await retryUnavailable(read, options);
      yield data;
    }
  }

  #file(key: string): ReturnType<Bucket["file"]> {
    assertObjectKey(key);
    return this.#bucket.file(this.#prefix + key);
  }

  #request<T>(
    action: string,
    key: string,
    options: AbortOptions | undefined,
    run: () => Promise<T>,
  ): Promise<T> {
    return request(run, `Cannot ${action} "${this.name}${key}"`, statusOf, options);
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
