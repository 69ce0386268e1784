import { randomUUID } from "node:crypto";
import type {
  BlobServiceClient,
  BlockBlobClient,
  ContainerClient,
  ContainerListBlobFlatSegmentResponse,
  StoragePipelineOptions,
} from "@azure/storage-blob";
import { z } from "zod";
import { TIMEOUT_MS } from "../address/integer-key.ts";
import { proxyFor } from "../address/proxy.ts";
import { collectBytes } from "../bytes/byte-string.ts";
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

/**
 * A container of Azure Blob Storage. Credentials come from `AZURE_STORAGE_CONNECTION_STRING` where that is set, and
 * otherwise from what `@azure/identity` finds. Versions are ETags.
 */
export class AzureContainer implements Bucket {
  readonly name: string;
  readonly partsAtOnce = 2;
  readonly #container: ContainerClient;

  private constructor(container: ContainerClient) {
    this.#container = container;
    this.name = `az://${container.containerName}`;
  }

  /**
   * Opens a container. Nothing is connected yet.
   *
   * @throws CastoreError `unimplemented` where the library is not installed, `invalid_argument` where
   *   nothing says which account it is
   */
  static async open(
    container: string,
    { account_name: account, endpoint }: z.output<typeof AZURE_OPTIONS>,
  ): Promise<AzureContainer> {
    const { BlobServiceClient } = await loadSdk(
      "@azure/storage-blob",
      () => import("@azure/storage-blob"),
    );
    const open = (service: (options: StoragePipelineOptions) => BlobServiceClient, url: string) => {
      const settings = { retryOptions: { maxTries: 1 }, ...proxyOptions(url) };
      return new AzureContainer(service(settings).getContainerClient(container));
    };
    const connection = process.env.AZURE_STORAGE_CONNECTION_STRING;
    if (connection && account === undefined && endpoint === undefined) {
      const { url } = BlobServiceClient.fromConnectionString(connection);
      return open((options) => BlobServiceClient.fromConnectionString(connection, options), url);
    }
    const name = account ?? process.env.AZURE_STORAGE_ACCOUNT;
    if (name === undefined && endpoint === undefined) {
      throw new CastoreError(
        "invalid_argument",
        `Cannot open "az://${container}": expected option "account_name" or "endpoint", or ` +
          "AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCOUNT in the environment",
      );
    }
    const { DefaultAzureCredential } = await loadSdk(
      "@azure/identity",
      () => import("@azure/identity"),
    );
    const url = endpoint ?? `https://${name}.blob.core.windows.net`;
    const credential = new DefaultAzureCredential();
    return open((options) => new BlobServiceClient(url, credential, options), url);
  }

  async get(
    key: string,
    { start, end, version }: BucketRange,
    abortSignal: AbortSignal,
  ): Promise<ObjectPart | undefined> {
    try {
      const answer = await this.#blob(key).download(start, end - start, {
        abortSignal,
        maxRetryRequests: 0,
        ...(version && { conditions: { ifMatch: version } }),
      });
      const body = answer.readableStreamBody as AsyncIterable<Uint8Array>;
      return { data: await collectBytes(body), version: answer.etag };
    } catch (error) {
      const status = statusOf(error);
      if (isAbsent(error) || status === 412) return undefined;
      if (status === 416) return { data: new Uint8Array(0), version }; // it begins behind the end
      throw error;
    }
  }

  async head(key: string, abortSignal: AbortSignal): Promise<Omit<ObjectHead, "key"> | undefined> {
    try {
      const found = await this.#blob(key).getProperties({ abortSignal });
      return { size: found.contentLength ?? 0, version: found.etag };
    } catch (error) {
      if (isAbsent(error)) return undefined;
      throw error;
    }
  }

  async put(key: string, data: Buffer, abortSignal: AbortSignal): Promise<void> {
    await this.#blob(key).upload(data, data.length, { abortSignal });
  }

  async list(prefix: string, { token }: ListFrom, abortSignal: AbortSignal): Promise<ObjectPage> {
    const blobs = this.#container.listBlobsFlat({ prefix, abortSignal });
    const { value } = await blobs.byPage(token ? { continuationToken: token } : {}).next();
    const page = value as ContainerListBlobFlatSegmentResponse;
    const objects = page.segment.blobItems.map(({ name, properties }) => ({
      key: name,
      size: properties.contentLength ?? 0,
    }));
    return { objects, next: page.continuationToken || undefined };
  }

  async delete(
    key: string,
    version: string | undefined,
    abortSignal: AbortSignal,
  ): Promise<boolean> {
    const conditions = version === undefined ? {} : { conditions: { ifMatch: version } };
    try {
      await this.#blob(key).delete({ abortSignal, ...conditions });
      return true;
    } catch (error) {
      if (isAbsent(error)) return false;
      if (statusOf(error) === 412) return true;
      throw error;
    }
  }

  async beginUpload(key: string): Promise<BucketUpload> {
    const blob = this.#blob(key);
    // Uploads of one key share their blocks, which have names of one length.
    const upload = randomUUID();
    const blocks: string[] = [];
    return {
      send: async ({ index, data }, abortSignal) => {
        const name = `${upload}-${String(index).padStart(6, "0")}`;
        blocks[index] = Buffer.from(name).toString("base64");
        await blob.stageBlock(blocks[index], data, data.length, { abortSignal });
      },
      finish: async (abortSignal) => {
        try {
          await blob.commitBlockList(blocks, { abortSignal });
        } catch (error) {
          // Whoever commits an upload drops the blocks of all others: as if this one had come first.
          const isOvertaken = codeOf(error) === "InvalidBlockList";
          if (!isOvertaken || (await this.head(key, abortSignal)) === undefined) throw error;
        }
      },
      // Blocks that are not committed are seen by nobody, and the service drops them after a week.
      abandon: async () => undefined,
    };
  }

  failureOf(error: unknown): Failure {
    const status = statusOf(error);
    const name = codeOf(error);
    if (name === NO_CONTAINER) return { code: "invalid_argument", reason: NO_BUCKET };
    const code = codeOfStatus(status);
    const [text = ""] = textOf(error).split("\n"); // ids of the request follow
    if (status === undefined) return { code, reason: `cannot reach the service: ${text}` };
    const reason = `HTTP status ${status}${name ? `, ${name}` : ""}${text ? `: ${text}` : ""}`;
    if (code !== "permission_denied") return { code, reason };
    const advice =
      'the service refuses access: the credentials need role "Storage Blob Data Contributor"';
    return { code, reason: `${advice} (${reason})` };
  }

  /** Every answer tells whether there is a container. */
  async look(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {
    // The library keeps no connections that could be ended.
  }

  #blob(key: string): BlockBlobClient {
    return this.#container.getBlockBlobClient(key);
  }
}

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

/** Names the proxy, if any: left alone, the library would find others than curl does. */
function proxyOptions(url: string): StoragePipelineOptions {
  const proxy = proxyFor(url);
  if (proxy === undefined) return {};
  const { protocol, hostname, port, username, password } = new URL(proxy);
  return {
    proxyOptions: {
      host: `${protocol}//${hostname}`,
      port: Number(port || (protocol === "https:" ? 443 : 80)),
      ...(username && { username: decodeURIComponent(username) }),
      ...(password && { password: decodeURIComponent(password) }),
    },
  };
}
