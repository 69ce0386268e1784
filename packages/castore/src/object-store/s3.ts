import type { S3Client } from "@aws-sdk/client-s3";
import { z } from "zod";
import { resolveRange } from "../blobservice/chunked-reader.ts";
import type { AbortOptions } from "../options.ts";
import {
  ATTEMPTS,
  CONNECT_TIMEOUT_MS,
  guarded,
  loadSdk,
  PART_BYTES,
  PARTS_IN_FLIGHT,
  request,
  retryUnavailable,
  SILENCE_TIMEOUT_MS,
  unlessPresent,
  uploadThrough,
  WHOLE_BYTES,
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

/** What the AWS SDK is told beside its own configuration and credentials. */
export const S3_OPTIONS: z.ZodType<{
  endpoint?: string | undefined;
  region?: string | undefined;
  force_path_style?: boolean | undefined;
  profile?: string | undefined;
}> = z.strictObject({
  endpoint: z.url({ protocol: /^https?$/ }).optional(),
  region: z.string().optional(),
  force_path_style: z.union([z.boolean(), z.stringbool()]).optional(),
  profile: z.string().optional(),
});

type Sdk = typeof import("@aws-sdk/client-s3");
type UploadSdk = typeof import("@aws-sdk/lib-storage");

/** Keeps objects in a bucket of S3, or of what speaks its protocol, by the AWS SDK. */
export class S3ObjectStore implements ObjectStore {
  readonly name: string;
  readonly #sdk: Sdk;
  readonly #uploads: UploadSdk;
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #prefix: string;

  private constructor(
    sdk: Sdk,
    uploads: UploadSdk,
    client: S3Client,
    bucket: string,
    prefix: string,
  ) {
    this.#sdk = sdk;
    this.#uploads = uploads;
    this.#client = client;
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.name = `s3://${bucket}/${prefix}`;
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
    const client = new sdk.S3Client({
      ...(endpoint && { endpoint }),
      ...(region && { region }),
      ...(forcePathStyle !== undefined && { forcePathStyle }),
      ...(profile && { profile }),
      maxAttempts: ATTEMPTS,
      requestHandler: { connectionTimeout: CONNECT_TIMEOUT_MS, socketTimeout: SILENCE_TIMEOUT_MS },
      // Contents are named by their digests, which are checked when they are read.
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
    });
    return new S3ObjectStore(sdk, uploads, client, bucket, prefix);
  }

  async get(
    key: string,
    options: GetObjectOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const { start, end } = resolveRange(Number.MAX_SAFE_INTEGER, options);
    const input = this.#input(key);
    if (start === end) return (await this.head(key, options)) && onePiece(new Uint8Array(0));
    const { signal } = options;
    const range =
      start > 0 || end < Number.MAX_SAFE_INTEGER ? { Range: `bytes=${start}-${end - 1}` } : {};
    const command = new this.#sdk.GetObjectCommand({ ...input, ...range });
    const get = async () => {
      const { Body: body, ContentLength: length = Number.POSITIVE_INFINITY } =
        await this.#client.send(command, { abortSignal: signal });
      if (length <= WHOLE_BYTES) return onePiece(await body!.transformToByteArray());
      const guard = <T>(run: () => Promise<T>) => this.#request("get", key, options, run);
      return guarded(body as AsyncIterable<Uint8Array>, guard);
    };
    const getIfThere = async () => {
      try {
        return await get();
      } catch (error) {
        if (isNamed(error, "NoSuchKey")) return undefined;
        if (statusOf(error) === 416) return onePiece(new Uint8Array(0)); // it begins behind the end
        throw error;
      }
    };
    return await retryUnavailable(() => this.#request("get", key, options, getIfThere), options);
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectMeta | undefined> {
    const command = new this.#sdk.HeadObjectCommand(this.#input(key));
    return await this.#request("look up", key, options, async () => {
      try {
        const found = await this.#client.send(command, { abortSignal: options?.signal });
        return { key, size: found.ContentLength ?? 0 };
      } catch (error) {
        if (isNamed(error, "NotFound", "NoSuchKey")) return undefined;
        throw error;
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
    return await this.#request("store", key, options, () =>
      unlessPresent(
        () => this.#client.send(command, { abortSignal: options?.signal }),
        statusOf,
        PRESENT,
      ),
    );
  }

  openUpload(key: string, options?: PutObjectOptions): ObjectUpload {
    const input = this.#input(key);
    return uploadThrough(key, (body) => {
      const upload = new this.#uploads.Upload({
        client: this.#client,
        params: { ...input, Body: body, ...(options?.ifAbsent && { IfNoneMatch: "*" }) },
        partSize: PART_BYTES,
        queueSize: PARTS_IN_FLIGHT,
      });
      const abort = () => upload.abort();
      options?.signal?.addEventListener("abort", abort, { once: true });
      const done = this.#request("store", key, options, () =>
        unlessPresent(() => upload.done(), statusOf, PRESENT),
      ).finally(() => options?.signal?.removeEventListener("abort", abort));
      return { done, abort };
    });
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
    this.#client.destroy();
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
    return request(run, `Cannot ${action} "${this.name}${key}"`, statusOf, options);
  }
}

/** Answers that say that there is an object, or that somebody else stores one at the same time. */
const PRESENT = [409, 412];

function statusOf(error: unknown): number | undefined {
  const { $metadata } = error as { $metadata?: { httpStatusCode?: number } };
  if (isNamed(error, "CredentialsProviderError")) return 401;
  return $metadata?.httpStatusCode;
}

function isNamed(error: unknown, ...names: readonly string[]): boolean {
  return error instanceof Error && names.includes(error.name);
}
