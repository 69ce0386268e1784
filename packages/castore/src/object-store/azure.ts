import type { BlockBlobClient, ContainerClient } from "@azure/storage-blob";
import { z } from "zod";
import { resolveRange } from "../blobservice/chunked-reader.ts";
import type { AbortOptions } from "../options.ts";
import {
  ATTEMPTS,
  guardedStream,
  loadSdk,
  PART_BYTES,
  PARTS_IN_FLIGHT,
  request,
  SILENCE_TIMEOUT_MS,
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
import { onePiece } from "./one-piece.ts";

/** What the library of Azure is told beside its own configuration and credentials. */
export const AZURE_OPTIONS: z.ZodType<{
  account_name?: string | undefined;
  endpoint?: string | undefined;
}> = z.strictObject({
  account_name: z.string().optional(),
  endpoint: z.url({ protocol: /^https?$/ }).optional(),
});

/**
 * Keeps objects in a container of Azure Blob Storage. Credentials come from `AZURE_STORAGE_CONNECTION_STRING`
 * where that is set, and otherwise from what `@azure/identity` finds.
 */
export class AzureObjectStore implements ObjectStore {
  readonly name: string;
  readonly #container: ContainerClient;
  readonly #prefix: string;

  private constructor(container: ContainerClient, prefix: string) {
    this.#container = container;
    this.#prefix = prefix;
    this.name = `az://${container.containerName}/${prefix}`;
  }

  /**
   * Opens a container. Nothing is connected yet.
   *
   * @param prefix what every key begins with: empty, or ending with `/`
   * @throws CastoreError `unimplemented` where the library is not installed
   */
  static async open(
    container: string,
    prefix: string,
    { account_name: account, endpoint }: z.output<typeof AZURE_OPTIONS>,
  ): Promise<AzureObjectStore> {
    const { BlobServiceClient } = await loadSdk(
      "@azure/storage-blob",
      () => import("@azure/storage-blob"),
    );
    const retryOptions = { maxTries: ATTEMPTS, tryTimeoutInMs: SILENCE_TIMEOUT_MS };
    const connection = process.env.AZURE_STORAGE_CONNECTION_STRING;
    if (connection && account === undefined && endpoint === undefined) {
      const service = BlobServiceClient.fromConnectionString(connection, { retryOptions });
      return new AzureObjectStore(service.getContainerClient(container), prefix);
    }
    const { DefaultAzureCredential } = await loadSdk(
      "@azure/identity",
      () => import("@azure/identity"),
    );
    const name = account ?? process.env.AZURE_STORAGE_ACCOUNT;
    const url = endpoint ?? `https://${name}.blob.core.windows.net`;
    const service = new BlobServiceClient(url, new DefaultAzureCredential(), { retryOptions });
    return new AzureObjectStore(service.getContainerClient(container), prefix);
  }

  async get(
    key: string,
    options: GetObjectOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const { start, end } = resolveRange(Number.MAX_SAFE_INTEGER, options);
    const found = await this.head(key, options);
    if (found === undefined) return undefined;
    const length = Math.min(end, found.size) - start;
    if (length <= 0) return onePiece(new Uint8Array(0));
    const blob = this.#blob(key);
    const stream = async () => {
      const answer = await blob.download(start, length, { abortSignal: options.signal });
      return answer.readableStreamBody as AsyncIterable<Uint8Array>;
    };
    return guardedStream(stream, length, (run) => this.#request("get", key, options, run), options);
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectMeta | undefined> {
    const blob = this.#blob(key);
    return await this.#request("look up", key, options, async () => {
      try {
        const found = await blob.getProperties({ abortSignal: options?.signal });
        return { key, size: found.contentLength ?? 0 };
      } catch (error) {
        if (statusOf(error) === 404) return undefined;
        throw error;
      }
    });
  }

  async put(key: string, data: Uint8Array, options?: PutObjectOptions): Promise<boolean> {
    const blob = this.#blob(key);
    const settings = { ...ifAbsent(options), abortSignal: options?.signal };
    return await this.#request("store", key, options, () =>
      unlessPresent(() => blob.upload(Buffer.from(data), data.length, settings), statusOf, PRESENT),
    );
  }

  openUpload(key: string, options?: PutObjectOptions): ObjectUpload {
    const blob = this.#blob(key);
    return uploadThrough(key, (body) => {
      const stop = new AbortController();
      const signals = [stop.signal, ...(options?.signal ? [options.signal] : [])];
      const settings = { ...ifAbsent(options), abortSignal: AbortSignal.any(signals) };
      const send = () => blob.uploadStream(body, PART_BYTES, PARTS_IN_FLIGHT, settings);
      const done = this.#request("store", key, options, async () => {
        try {
          return await unlessPresent(send, statusOf, PRESENT);
        } catch (error) {
          if (!(await this.#isOvertaken(key, error, options))) throw error;
          return options?.ifAbsent !== true; // as if it had been stored first, and replaced
        }
      });
      // Blocks that are not committed are seen by nobody, and the service drops them after a week.
      return { done, abort: async () => stop.abort() };
    });
  }

  async *list(prefix: string, options: ListObjectsOptions = {}): AsyncGenerator<ObjectMeta> {
    const { after = "", signal } = options;
    const pages = this.#container
      .listBlobsFlat({ prefix: this.#prefix + prefix, abortSignal: signal })
      .byPage();
    for (;;) {
      const page = await this.#request("list", prefix, options, () => pages.next());
      if (page.done) return;
      for (const { name, properties } of page.value.segment.blobItems) {
        signal?.throwIfAborted();
        const key = name.slice(this.#prefix.length);
        if (key > after) yield { key, size: properties.contentLength ?? 0 };
      }
    }
  }

  async delete(key: string, options?: AbortOptions): Promise<void> {
    const blob = this.#blob(key);
    await this.#request("delete", key, options, () =>
      blob.deleteIfExists({ abortSignal: options?.signal }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The library keeps no connections that could be ended.
  }

  /** Whether an upload failed because somebody else stored the object, which drops the blocks of all others. */
  async #isOvertaken(key: string, error: unknown, options?: AbortOptions): Promise<boolean> {
    const { code } = error as { code?: string };
    return code === "InvalidBlockList" && (await this.head(key, options)) !== undefined;
  }

  #blob(key: string): BlockBlobClient {
    assertObjectKey(key);
    return this.#container.getBlockBlobClient(this.#prefix + key);
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
  return options?.ifAbsent ? { conditions: { ifNoneMatch: "*" } } : {};
}

/** Answers that say that there is an object, or that somebody else stores one at the same time. */
const PRESENT = [409, 412];

function statusOf(error: unknown): number | undefined {
  const { statusCode } = error as { statusCode?: number };
  return statusCode;
}
