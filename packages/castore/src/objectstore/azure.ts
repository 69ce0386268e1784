import type {
  BlobServiceClient,
  BlockBlobClient,
  ContainerClient,
  ContainerListBlobFlatSegmentResponse,
  StoragePipelineOptions,
} from "@azure/storage-blob";
import { z } from "zod";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { collectBytes } from "../bytes/byte-string.ts";
import { CastoreError } from "../model/errors.ts";
import { resolveRange } from "../model/range.ts";
import { missingBucket } from "./bucket-check.ts";
import { loadSdk, PARTS_IN_FLIGHT, unlessPresent, uploadThrough } from "./cloud.ts";
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

/** What the library of Azure is told beside its own configuration and credentials. */
export const AZURE_OPTIONS: z.ZodType<{
  account_name?: string | undefined;
  endpoint?: string | undefined;
  timeout_ms?: number | undefined;
}> = z.strictObject({
  account_name: z.string().optional(),
  endpoint: z.url({ protocol: /^https?$/ }).optional(),
  timeout_ms: TIMEOUT_MS,
});

/** How long a request may take, in milliseconds, unless the options say so. */
const REQUEST_MS = 60_000;

/** The pause before the third attempt at a part of an upload, which grows from there. The second is made at once. */
const RETRY_DELAY_MS = 1000;

/**
 * Keeps objects in a container of Azure Blob Storage. Credentials come from `AZURE_STORAGE_CONNECTION_STRING`
 * where that is set, and otherwise from what `@azure/identity` finds.
 */
export class AzureObjectStore implements ObjectStore {
  readonly name: string;
  readonly #container: ContainerClient;
  /** The same container, as uploads use it: the library itself tries their parts again. */
  readonly #uploads: ContainerClient;
  readonly #prefix: string;
  readonly #timeoutMs: number;

  private constructor(
    { container, uploads }: { container: ContainerClient; uploads: ContainerClient },
    prefix: string,
    timeoutMs: number,
  ) {
    this.#container = container;
    this.#uploads = uploads;
    this.#prefix = prefix;
    this.#timeoutMs = timeoutMs;
    this.name = `az://${container.containerName}/${prefix}`;
  }

  /**
   * Opens a container. Nothing is connected yet.
   *
   * @param prefix what every key begins with: empty, or ending with `/`
   * @throws CastoreError `unimplemented` where the library is not installed, `invalid_argument` where
   *   nothing says which account it is
   */
  static async open(
    container: string,
    prefix: string,
    { account_name: account, endpoint, timeout_ms = REQUEST_MS }: z.output<typeof AZURE_OPTIONS>,
  ): Promise<AzureObjectStore> {
    const { BlobServiceClient } = await loadSdk(
      "@azure/storage-blob",
      () => import("@azure/storage-blob"),
    );
    const openContainer = (service: (options: StoragePipelineOptions) => BlobServiceClient) => {
      const withRetries = (maxTries: number) => {
        const retryOptions = { maxTries, retryDelayInMs: RETRY_DELAY_MS };
        return service({ retryOptions }).getContainerClient(container);
      };
      const clients = { container: withRetries(1), uploads: withRetries(ATTEMPTS) };
      return new AzureObjectStore(clients, prefix, timeout_ms);
    };
    const connection = process.env.AZURE_STORAGE_CONNECTION_STRING;
    if (connection && account === undefined && endpoint === undefined) {
      return openContainer((options) =>
        BlobServiceClient.fromConnectionString(connection, options),
      );
    }
    const name = account ?? process.env.AZURE_STORAGE_ACCOUNT;
    if (name === undefined && endpoint === undefined) {
      throw new CastoreError(
        "invalid_argument",
        `Cannot open "az://${container}/${prefix}": expected option "account_name" or "endpoint", or ` +
          "AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCOUNT in the environment",
      );
    }
    const { DefaultAzureCredential } = await loadSdk(
      "@azure/identity",
      () => import("@azure/identity"),
    );
    const url = endpoint ?? `https://${name}.blob.core.windows.net`;
    const credential = new DefaultAzureCredential();
    return openContainer((options) => new BlobServiceClient(url, credential, options));
  }

  async get(
    key: string,
    options: GetObjectOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const { start, end } = resolveRange(Number.MAX_SAFE_INTEGER, options);
    const blob = this.#blob(key);
    if (start === end) return (await this.head(key, options)) && onePiece(new Uint8Array(0));
    return await readParts(this.name + key, { start, end }, (from, to, version) => {
      const read = async (abortSignal: AbortSignal): Promise<ObjectPart | undefined> => {
        try {
          const answer = await blob.download(from, to - from, {
            abortSignal,
            maxRetryRequests: 0, // it is asked for again as a whole
            ...(version && { conditions: { ifMatch: version } }),
          });
          const body = answer.readableStreamBody as AsyncIterable<Uint8Array>;
          return { data: await collectBytes(body), version: answer.etag };
        } catch (error) {
          const status = statusOf(error);
          if (isAbsent(error) || status === 412) return undefined;
          if (status === 416) return { data: new Uint8Array(0) }; // it begins behind the end
          throw error;
        }
      };
      return this.#request("get", key, options, () => this.#inTime(read, options));
    });
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectMeta | undefined> {
    const blob = this.#blob(key);
    return await this.#request("look up", key, options, async () => {
      try {
        const look = (abortSignal: AbortSignal) => blob.getProperties({ abortSignal });
        const found = await this.#inTime(look, options);
        return { key, size: found.contentLength ?? 0 };
      } catch (error) {
        if (isAbsent(error)) return undefined;
        throw error;
      }
    });
  }

  async put(key: string, data: Uint8Array, options?: PutObjectOptions): Promise<boolean> {
    const blob = this.#blob(key);
    const contents = Buffer.from(data); // the library may go on with it when it is cancelled
    const send = (abortSignal: AbortSignal) =>
      blob.upload(contents, contents.length, { ...ifAbsent(options), abortSignal });
    return await this.#request("store", key, options, () =>
      unlessPresent(() => this.#inTime(send, options), statusOf, options?.ifAbsent ? PRESENT : []),
    );
  }

  openUpload(key: string, options?: PutObjectOptions): ObjectUpload {
    const blob = this.#blob(key, this.#uploads);
    return uploadThrough(
      key,
      (body) => {
        const stop = new AbortController();
        const signals = [stop.signal, ...(options?.signal ? [options.signal] : [])];
        const settings = { ...ifAbsent(options), abortSignal: AbortSignal.any(signals) };
        const send = () => blob.uploadStream(body, PART_BYTES, PARTS_IN_FLIGHT, settings);
        const done = this.#request("store", key, options, async () => {
          try {
            return await unlessPresent(send, statusOf, options?.ifAbsent ? PRESENT : []);
          } catch (error) {
            if (!(await this.#isOvertaken(key, error, options))) throw error;
            return options?.ifAbsent !== true; // as if it had been stored first, and replaced
          }
        });
        // Blocks that are not committed are seen by nobody, and the service drops them after a week.
        return { done, abort: async () => stop.abort() };
      },
      { ...options, timeoutMs: ATTEMPTS * this.#timeoutMs },
    );
  }

  async *list(prefix: string, options: ListObjectsOptions = {}): AsyncGenerator<ObjectMeta> {
    const { after = "", signal } = options;
    let token: string | undefined;
    do {
      const from = token ? { continuationToken: token } : {};
      const list = async (abortSignal: AbortSignal) => {
        const blobs = this.#container.listBlobsFlat({ prefix: this.#prefix + prefix, abortSignal });
        return (await blobs.byPage(from).next()).value as ContainerListBlobFlatSegmentResponse;
      };
      const page = await this.#request("list", prefix, options, () => this.#inTime(list, options));
      for (const { name, properties } of page.segment.blobItems) {
        signal?.throwIfAborted();
        const key = name.slice(this.#prefix.length);
        if (key > after) yield { key, size: properties.contentLength ?? 0 };
      }
      token = page.continuationToken;
    } while (token);
  }

  async delete(key: string, options?: AbortOptions): Promise<void> {
    const blob = this.#blob(key);
    await this.#request("delete", key, options, () =>
      this.#inTime((abortSignal) => blob.deleteIfExists({ abortSignal }), options),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The library keeps no connections that could be ended.
  }

  /** Whether an upload failed because somebody else stored the object, which drops the blocks of all others. */
  async #isOvertaken(key: string, error: unknown, options?: AbortOptions): Promise<boolean> {
    return codeOf(error) === "InvalidBlockList" && (await this.head(key, options)) !== undefined;
  }

  /** Makes a request, also again where nobody answers, which the library would wait for. */
  #inTime<T>(run: (signal: AbortSignal) => Promise<T>, options?: AbortOptions): Promise<T> {
    return retryRequest(() => withTimeout(this.#timeoutMs, run, options), statusOf, options);
  }

  #blob(key: string, container: ContainerClient = this.#container): BlockBlobClient {
    assertObjectKey(key);
    return container.getBlockBlobClient(this.#prefix + key);
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
        throw codeOf(error) === NO_CONTAINER ? missingBucket(this.name, error) : error;
      }
    };
    return request(checked, `Cannot ${action} "${this.name}${key}"`, statusOf, options);
  }
}

/** The condition that there is no object yet. */
function ifAbsent(options?: PutObjectOptions): object {
  return options?.ifAbsent ? { conditions: { ifNoneMatch: "*" } } : {};
}

/** Answers that say that there is an object, or that somebody else stores one at the same time. */
const PRESENT = [409, 412];

/** What the service says of a container that does not exist, whatever is asked for. */
const NO_CONTAINER = "ContainerNotFound";

function isAbsent(error: unknown): boolean {
  return statusOf(error) === 404 && codeOf(error) !== NO_CONTAINER;
}

/** What the service says is wrong, which is in the headers alone where an answer has no contents. */
function codeOf(error: unknown): string | undefined {
  const { code, details } = error as { code?: string; details?: { errorCode?: string } };
  return code ?? details?.errorCode;
}

function statusOf(error: unknown): number | undefined {
  const { statusCode } = error as { statusCode?: number };
  return statusCode;
}
