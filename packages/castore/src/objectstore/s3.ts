import { randomUUID } from "node:crypto";
import type { CompletedPart, S3Client, S3ClientConfig } from "@aws-sdk/client-s3";
import { z } from "zod";
import { TIMEOUT_MS } from "../address/integer-key.ts";
import { proxyFor } from "../address/proxy.ts";
import { CastoreError } from "../model/errors.ts";
import {
  type Bucket,
  type BucketRange,
  type BucketUpload,
  codeOfStatus,
  type Failure,
  type ListFrom,
  loadSdk,
  NO_BUCKET,
  type ObjectPage,
  textOf,
} from "./bucket.ts";
import type { ObjectHead } from "./object-store.ts";
import type { ObjectPart } from "./read-parts.ts";

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

/** How long a connection may take, in milliseconds. */
const CONNECT_TIMEOUT_MS = 10_000;

/** An ETag that no object has. */
const NO_ETAG = `"${"0".repeat(32)}"`;

type Sdk = typeof import("@aws-sdk/client-s3");

/** A bucket of S3, or of a service that speaks its protocol, by the AWS SDK. Versions are ETags. */
export class S3Bucket implements Bucket {
  readonly name: string;
  readonly partsAtOnce = 2;
  readonly #sdk: Sdk;
  readonly #client: S3Client;
  readonly #bucket: string;
  #deletesOnCondition: Promise<boolean> | undefined;

  private constructor(sdk: Sdk, client: S3Client, bucket: string) {
    this.#sdk = sdk;
    this.#client = client;
    this.#bucket = bucket;
    this.name = `s3://${bucket}`;
  }

  /**
   * Opens a bucket. Nothing is connected yet.
   *
   * @throws CastoreError `unimplemented` where the SDK is not installed
   */
  static async open(bucket: string, options: z.output<typeof S3_OPTIONS>): Promise<S3Bucket> {
    const sdk = await loadSdk("@aws-sdk/client-s3", () => import("@aws-sdk/client-s3"));
    const { endpoint, region, force_path_style: forcePathStyle, profile } = options;
    const client = new sdk.S3Client({
      ...(endpoint && { endpoint }),
      ...(region && { region }),
      ...(forcePathStyle !== undefined && { forcePathStyle }),
      ...(profile && { profile }),
      cacheMiddleware: true, // else it is put together for each request
      maxAttempts: 1,
      expectContinueHeader: false, // not every proxy hands it on
      requestHandler: {
        connectionTimeout: CONNECT_TIMEOUT_MS,
        ...(await proxyAgents(endpoint ?? process.env.AWS_ENDPOINT_URL)),
      },
      // Contents are named by their digests, which are checked when they are read.
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
    });
    return new S3Bucket(sdk, client, bucket);
  }

  async get(
    key: string,
    { start, end, version }: BucketRange,
    abortSignal: AbortSignal,
  ): Promise<ObjectPart | undefined> {
    const command = new this.#sdk.GetObjectCommand({
      ...this.#input(key),
      Range: `bytes=${start}-${end - 1}`,
      ...(version && { IfMatch: version }),
    });
    try {
      const answer = await this.#client.send(command, { abortSignal });
      return { data: await answer.Body!.transformToByteArray(), version: answer.ETag };
    } catch (error) {
      if (isNamed(error, "NoSuchKey") || statusOf(error) === 412) return undefined;
      if (statusOf(error) === 416) return { data: new Uint8Array(0), version }; // it begins behind the end
      throw error;
    }
  }

  async head(key: string, abortSignal: AbortSignal): Promise<Omit<ObjectHead, "key"> | undefined> {
    const command = new this.#sdk.HeadObjectCommand(this.#input(key));
    try {
      const found = await this.#client.send(command, { abortSignal });
      return { size: found.ContentLength ?? 0, version: found.ETag };
    } catch (error) {
      if (isNamed(error, "NotFound", "NoSuchKey")) return undefined;
      throw error;
    }
  }

  async put(key: string, data: Buffer, abortSignal: AbortSignal): Promise<void> {
    const input = { ...this.#input(key), Body: data, ContentLength: data.length };
    await this.#client.send(new this.#sdk.PutObjectCommand(input), { abortSignal });
  }

  async list(
    prefix: string,
    { token, after }: ListFrom,
    abortSignal: AbortSignal,
  ): Promise<ObjectPage> {
    const command = new this.#sdk.ListObjectsV2Command({
      Bucket: this.#bucket,
      Prefix: prefix,
      ...(token ? { ContinuationToken: token } : after && { StartAfter: after }),
    });
    const page = await this.#client.send(command, { abortSignal });
    const objects = (page.Contents ?? []).map(({ Key: key = "", Size: size = 0 }) => ({
      key,
      size,
    }));
    return { objects, next: page.NextContinuationToken };
  }

  async delete(
    key: string,
    version: string | undefined,
    abortSignal: AbortSignal,
  ): Promise<boolean> {
    if (version !== undefined && !(await this.#canDeleteOnCondition(key, abortSignal))) {
      const text = "the service ignores conditions of deletes";
      throw new CastoreError("unimplemented", text);
    }
    const input = { ...this.#input(key), ...(version && { IfMatch: version }) };
    try {
      await this.#client.send(new this.#sdk.DeleteObjectCommand(input), { abortSignal });
    } catch (error) {
      if (!isNamed(error, "NoSuchKey") && statusOf(error) !== 412) throw error;
    }
    return true;
  }

  async beginUpload(key: string, abortSignal: AbortSignal): Promise<BucketUpload> {
    const create = new this.#sdk.CreateMultipartUploadCommand(this.#input(key));
    const { UploadId } = await this.#client.send(create, { abortSignal });
    const input = { ...this.#input(key), UploadId };
    const parts: CompletedPart[] = [];
    let size = 0;
    return {
      send: async ({ index, data, offset }, abortSignal) => {
        const PartNumber = index + 1;
        const part = { ...input, PartNumber, Body: data, ContentLength: data.length };
        const command = new this.#sdk.UploadPartCommand(part);
        const { ETag } = await this.#client.send(command, { abortSignal });
        parts[index] = { PartNumber, ETag };
        size = Math.max(size, offset + data.length);
      },
      finish: async (abortSignal) => {
        const complete = { ...input, MultipartUpload: { Parts: parts } };
        const command = new this.#sdk.CompleteMultipartUploadCommand(complete);
        try {
          await this.#client.send(command, { abortSignal });
        } catch (error) {
          // The answer to an attempt before this one may have got lost.
          const isOver = isNamed(error, "NoSuchUpload");
          if (!isOver || (await this.head(key, abortSignal))?.size !== size) throw error;
        }
      },
      abandon: async (abortSignal) => {
        await this.#client.send(new this.#sdk.AbortMultipartUploadCommand(input), { abortSignal });
      },
    };
  }

  failureOf(error: unknown): Failure {
    const status = statusOf(error);
    const { name, message, $metadata } = error as Error & { $metadata?: AnswerMetadata };
    const known = FAILURES[name];
    if (known !== undefined) return { ...known, reason: `${known.reason} (${textOf(error)})` };
    if (name === "CredentialsProviderError") {
      return { code: "permission_denied", reason: `no credentials were found: ${textOf(error)}` };
    }
    if (message === "Region is missing") {
      const reason = `no region is set: expected option "region", AWS_REGION, or a profile with one`;
      return { code: "invalid_argument", reason };
    }
    if ($metadata?.clockSkewCorrected) return { code: "unavailable", reason: textOf(error) };
    const code = codeOfStatus(status);
    if (status === undefined) return { code, reason: `cannot reach the service: ${textOf(error)}` };
    if (status < 500 && message.includes("Deserialization error")) {
      const reason = `HTTP status ${status} with an answer that is not one of S3: is option "endpoint" right?`;
      return { code: "invalid_argument", reason };
    }
    const isBare = message === "UnknownError";
    const found = isBare ? `HTTP status ${status}` : `${name}: ${textOf(error)}`;
    return { code, reason: status === 403 ? `${REFUSED} (${found})` : found, isBare };
  }

  async look(abortSignal: AbortSignal): Promise<unknown> {
    const command = new this.#sdk.ListObjectsV2Command({ Bucket: this.#bucket, MaxKeys: 1 });
    return await this.#client.send(command, { abortSignal });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.destroy();
  }

  /**
   * Tells whether the service heeds the condition of a delete, which is newer than the protocol: others delete in any
   * case. Tried once, on an object that nobody else has.
   */
  #canDeleteOnCondition(besides: string, abortSignal: AbortSignal): Promise<boolean> {
    const attempt = async () => {
      const key = `${besides}.${randomUUID()}`;
      await this.put(key, Buffer.from("deleted at once"), abortSignal);
      const input = { ...this.#input(key), IfMatch: NO_ETAG };
      try {
        await this.#client.send(new this.#sdk.DeleteObjectCommand(input), { abortSignal });
        return false;
      } catch (error) {
        await this.delete(key, undefined, abortSignal);
        if (statusOf(error) === 412) return true;
        throw error;
      }
    };
    this.#deletesOnCondition ??= attempt().catch((error) => {
      this.#deletesOnCondition = undefined; // whoever deletes next tries again
      throw error;
    });
    return this.#deletesOnCondition;
  }

  #input(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#bucket, Key: key };
  }
}

const REFUSED =
  "the service refuses access: the credentials need s3:GetObject, s3:PutObject and s3:DeleteObject for the objects, " +
  "and s3:ListBucket for the bucket, without which S3 answers 403 for keys that do not exist";

const WRONG_REGION: Failure = {
  code: "invalid_argument",
  reason: 'the bucket is in another region than option "region" says',
};

/** What errors of the service mean, by name. */
const FAILURES: Readonly<Record<string, Failure>> = {
  NoSuchBucket: { code: "invalid_argument", reason: NO_BUCKET },
  SignatureDoesNotMatch: {
    code: "permission_denied",
    reason: "the secret access key is not the one of the access key id",
  },
  InvalidAccessKeyId: {
    code: "permission_denied",
    reason: "the service does not know the access key id",
  },
  ExpiredToken: { code: "permission_denied", reason: "the credentials have expired" },
  AuthorizationHeaderMalformed: WRONG_REGION,
  PermanentRedirect: WRONG_REGION,
  IllegalLocationConstraintException: WRONG_REGION,
};

/** What the SDK says about an answer. */
interface AnswerMetadata {
  readonly httpStatusCode?: number;
  /** Whether the SDK has found out by it how wrong our clock is. */
  readonly clockSkewCorrected?: boolean;
}

function statusOf(error: unknown): number | undefined {
  return (error as { $metadata?: AnswerMetadata }).$metadata?.httpStatusCode;
}

function isNamed(error: unknown, ...names: readonly string[]): boolean {
  return error instanceof Error && names.includes(error.name);
}

/** Returns the agents of a client behind a proxy. */
async function proxyAgents(
  endpoint = "https://s3.amazonaws.com",
): Promise<NonNullable<S3ClientConfig["requestHandler"]>> {
  const proxy = proxyFor(endpoint);
  if (proxy === undefined) return {};
  const { HttpProxyAgent } = await import("http-proxy-agent");
  const { HttpsProxyAgent } = await import("https-proxy-agent");
  const settings = { keepAlive: true, maxSockets: 50 }; // as the SDK has it without a proxy
  return {
    httpAgent: new HttpProxyAgent(proxy, settings),
    httpsAgent: new HttpsProxyAgent(proxy, settings),
  };
}
