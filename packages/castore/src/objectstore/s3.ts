import type { PassThrough } from "node:stream";
import type { S3Client } from "@aws-sdk/client-s3";
import { z } from "zod";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { resolveRange } from "../model/range.ts";
import { BucketCheck, missingBucket } from "./bucket-check.ts";
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
import { ATTEMPTS, CONNECT_TIMEOUT_MS, request, retryRequest } from "./retry.ts";

/** What the AWS SDK is told beside its own configuration and credentials. */
export const S3_OPTIONS: z.ZodType<{
  endpoint?: string | undefined;
  region?: string | undefined;
  force_path_style?: boolean | undefined;
  profile?: string | undefined;
  timeout_ms?: number | undefined;
}> = z.strictObject({
  endpoint: z.url({ protocol: /^https?$/ }).optional(),
  region: z.string().optional(),
  force_path_style: z.union([z.boolean(), z.stringbool()]).optional(),
  profile: z.string().optional(),
  timeout_ms: TIMEOUT_MS,
});

/** How long a connection may be silent, in milliseconds, unless the options say so. */
const SILENCE_MS = 30_000;

type Sdk = typeof import("@aws-sdk/client-s3");
type UploadSdk = typeof import("@aws-sdk/lib-storage");

/** Keeps objects in a bucket of S3, or of what speaks its protocol, by the AWS SDK. */
export class S3ObjectStore implements ObjectStore {
  readonly name: string;
  readonly #sdk: Sdk;
  readonly #uploads: UploadSdk;
  readonly #client: S3Client;
  /** The same client, except that it makes each request once: answers are read, and asked for again, as a whole. */
  readonly #readingClient: S3Client;
  readonly #bucket: string;
  readonly #prefix: string;
  readonly #check: BucketCheck;

  private constructor(
    sdk: Sdk,
    uploads: UploadSdk,
    clients: { readonly client: S3Client; readonly readingClient: S3Client },
    bucket: string,
    prefix: string,
  ) {
    this.#sdk = sdk;
    this.#uploads = uploads;
    this.#client = clients.client;
    this.#readingClient = clients.readingClient;
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.name = `s3://${bucket}/${prefix}`;
    const look = (options?: AbortOptions) => {
      const command = new sdk.HeadBucketCommand({ Bucket: bucket });
      return this.#client.send(command, { abortSignal: options?.signal });
    };
    this.#check = new BucketCheck(this.name, look, statusOf);
  }

  /**
   * Opens a bucket. Nothing is connected yet.
   *
   * @param prefix what every key begins with: empty, or ending with `/`
   * @throws CastoreError `unimplemented` where the SDK is not installed
   */
  static async open(
    bucket: string,
    prefix: string,
    options: z.output<typeof S3_OPTIONS>,
  ): Promise<S3ObjectStore> {
    const sdk = await loadSdk("@aws-sdk/client-s3", () => import("@aws-sdk/client-s3"));
    const uploads = await loadSdk("@aws-sdk/lib-storage", () => import("@aws-sdk/lib-storage"));
    const { endpoint, region, force_path_style: forcePathStyle, profile } = options;
    const { timeout_ms: socketTimeout = SILENCE_MS } = options;
    const settings = {
      ...(endpoint && { endpoint }),
      ...(region && { region }),
      ...(forcePathStyle !== undefined && { forcePathStyle }),
      ...(profile && { profile }),
      cacheMiddleware: true, // else it is put together for each request
      requestHandler: { connectionTimeout: CONNECT_TIMEOUT_MS, socketTimeout },
      // Contents are named by their digests, which are checked when they are read.
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
    } as const;
    const client = new sdk.S3Client({ ...settings, maxAttempts: ATTEMPTS });
    const { requestHandler, credentials, region: resolved } = client.config;
    const shared = { requestHandler, credentials, region: resolved };
    const readingClient = new sdk.S3Client({ ...settings, ...shared, maxAttempts: 1 });
    return new S3ObjectStore(sdk, uploads, { client, readingClient }, bucket, prefix);
  }

  async get(
    key: string,
    options: GetObjectOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const { start, end } = resolveRange(Number.MAX_SAFE_INTEGER, options);
    const input = this.#input(key);
    if (start === end) return (await this.head(key, options)) && onePiece(new Uint8Array(0));
    const abortSignal = options.signal;
    return await readParts(this.name + key, { start, end }, async (from, to, version) => {
      const command = new this.#sdk.GetObjectCommand({
        ...input,
        Range: `bytes=${from}-${to - 1}`,
        ...(version && { IfMatch: version }),
      });
      const get = async (): Promise<ObjectPart | undefined> => {
        try {
          const answer = await this.#readingClient.send(command, { abortSignal });
          return { data: await answer.Body!.transformToByteArray(), version: answer.ETag };
        } catch (error) {
          if (isNamed(error, "NoSuchKey") || statusOf(error) === 412) return undefined;
          if (statusOf(error) === 416) return { data: new Uint8Array(0) }; // it begins behind the end
          throw error;
        }
      };
      return await this.#request("get", key, options, () => retryRequest(get, statusOf, options));
    });
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectMeta | undefined> {
    const command = new this.#sdk.HeadObjectCommand(this.#input(key));
    return await this.#request("look up", key, options, async () => {
      try {
        const found = await this.#client.send(command, { abortSignal: options?.signal });
        return { key, size: found.ContentLength ?? 0 };
      } catch (error) {
        if (!isNamed(error, "NotFound", "NoSuchKey")) throw error;
        await this.#check.assertExists(options); // the answer has no contents that would tell
        return undefined;
      }
    });
  }

  async put(key: string, data: Uint8Array, options?: PutObjectOptions): Promise<boolean> {
    const command = new this.#sdk.PutObjectCommand({
      ...this.#input(key),
      Body: data,
      ContentLength: data.length,
      ...(options?.ifAbsent && { IfNoneMatch: "*" }),
    });
    const send = () => this.#client.send(command, { abortSignal: options?.signal });
    return await this.#request("store", key, options, () => this.#store(key, send, options));
  }

  openUpload(key: string, options?: PutObjectOptions): ObjectUpload {
    const input = this.#input(key);
    const start = (body: PassThrough) => {
      const stop = new AbortController();
      const upload = new this.#uploads.Upload({
        client: this.#stoppable(stop.signal),
        params: { ...input, Body: body, ...(options?.ifAbsent && { IfNoneMatch: "*" }) },
        partSize: PART_BYTES,
        queueSize: PARTS_IN_FLIGHT,
      });
      // Not cancelled: it has to remove the parts that are there.
      const done = this.#request("store", key, undefined, () =>
        this.#store(key, () => upload.done(), options),
      );
      return { done, abort: () => stop.abort() };
    };
    return uploadThrough(key, start, options);
  }

  async *list(prefix: string, options: ListObjectsOptions = {}): AsyncGenerator<ObjectMeta> {
    const { after, signal } = options;
    let token: string | undefined;
    do {
      const command = new this.#sdk.ListObjectsV2Command({
        Bucket: this.#bucket,
        Prefix: this.#prefix + prefix,
        ...(token ? { ContinuationToken: token } : after && { StartAfter: this.#prefix + after }),
      });
      const page = await this.#request("list", prefix, options, () =>
        this.#client.send(command, { abortSignal: signal }),
      );
      for (const { Key: key = "", Size: size = 0 } of page.Contents ?? []) {
        signal?.throwIfAborted();
        yield { key: key.slice(this.#prefix.length), size };
      }
      token = page.NextContinuationToken;
    } while (token !== undefined);
  }

  async delete(key: string, options?: AbortOptions): Promise<void> {
    const command = new this.#sdk.DeleteObjectCommand(this.#input(key));
    await this.#request("delete", key, options, () =>
      this.#client.send(command, { abortSignal: options?.signal }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.destroy(); // and what the other one shares with it
  }

  /** Whether something was stored, which it is not where there was one and `ifAbsent` is set. */
  async #store(
    key: string,
    send: () => Promise<unknown>,
    options?: PutObjectOptions,
  ): Promise<boolean> {
    try {
      return await unlessPresent(send, statusOf, options?.ifAbsent ? [412] : []);
    } catch (error) {
      // Somebody else was storing it at the same time, and may have failed.
      const isRace = options?.ifAbsent && statusOf(error) === 409;
      if (isRace && (await this.head(key, options)) !== undefined) return false;
      throw error;
    }
  }

  /** The client as uploads use it: they end with the signal, except that what they began is removed. */
  #stoppable(abortSignal: AbortSignal): S3Client {
    const { CreateMultipartUploadCommand, AbortMultipartUploadCommand } = this.#sdk;
    const client: S3Client = Object.create(this.#client);
    const send = (command: Parameters<S3Client["send"]>[0]) => {
      const isKept =
        command instanceof CreateMultipartUploadCommand ||
        command instanceof AbortMultipartUploadCommand;
      return this.#client.send(command, isKept ? {} : { abortSignal });
    };
    return Object.assign(client, { send });
  }

  #input(key: string): { Bucket: string; Key: string } {
    assertObjectKey(key);
    return { Bucket: this.#bucket, Key: this.#prefix + key };
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
        throw isNamed(error, "NoSuchBucket") ? missingBucket(this.name, error) : error;
      }
    };
    return request(checked, `Cannot ${action} "${this.name}${key}"`, statusOf, options);
  }
}

/** What the SDK says about an answer. */
interface AnswerMetadata {
  readonly httpStatusCode?: number;
  /** Whether the SDK has found out by it how wrong our clock is. */
  readonly clockSkewCorrected?: boolean;
}

function statusOf(error: unknown): number | undefined {
  const { $metadata } = error as { $metadata?: AnswerMetadata };
  if (isNamed(error, "CredentialsProviderError")) return 401;
  if ($metadata?.clockSkewCorrected) return undefined; // it is another the next time
  return $metadata?.httpStatusCode;
}

function isNamed(error: unknown, ...names: readonly string[]): boolean {
  return error instanceof Error && names.includes(error.name);
}
