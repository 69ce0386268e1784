import type {
  File,
  Bucket as GcsBucketClient,
  GetFilesOptions,
  GetFilesResponse,
} from "@google-cloud/storage";
import { Agent, type Dispatcher, ProxyAgent, request as sendRequest } from "undici";
import { z } from "zod";
import { TIMEOUT_MS } from "../address/integer-key.ts";
import { proxyFor } from "../address/proxy.ts";
import { unlessAborted } from "../bytes/abort.ts";
import { collectBytes } from "../bytes/byte-string.ts";
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
import { HttpError } from "./http-parts.ts";
import type { ObjectHead } from "./object-store.ts";
import type { ObjectPart } from "./read-parts.ts";

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

/** When the library ends a request that nobody waits for any more, in milliseconds. */
const LIBRARY_TIMEOUT_MS = 60_000;

/** A bucket of Google Cloud Storage. Versions are generations. */
export class GcsBucket implements Bucket {
  readonly name: string;
  readonly partsAtOnce = 1;
  readonly #bucket: GcsBucketClient;
  readonly #dispatcher: Dispatcher;

  private constructor(bucket: GcsBucketClient, dispatcher: Dispatcher) {
    this.#bucket = bucket;
    this.#dispatcher = dispatcher;
    this.name = `gs://${bucket.name}`;
  }

  /**
   * Opens a bucket. Nothing is connected yet.
   *
   * @throws CastoreError `unimplemented` where the library is not installed
   */
  static async open(bucket: string, options: z.output<typeof GCS_OPTIONS>): Promise<GcsBucket> {
    const { endpoint, project_id: projectId, timeout_ms: timeout = LIBRARY_TIMEOUT_MS } = options;
    const { Storage } = await loadSdk(
      "@google-cloud/storage",
      () => import("@google-cloud/storage"),
    );
    const proxy = proxyFor(endpoint ?? "https://storage.googleapis.com");
    const storage = new Storage({
      ...(endpoint && { apiEndpoint: endpoint }),
      ...(projectId && { projectId }),
      ...(proxy && { clientOptions: { transporterOptions: { proxy } } }), // for credentials
      timeout,
      retryOptions: { autoRetry: false },
    });
    if (proxy !== undefined) {
      storage.interceptors.push({
        request: (options) => ({ ...(options as Parameters<File["requestStream"]>[0]), proxy }),
      });
    }
    return new GcsBucket(storage.bucket(bucket), proxy ? new ProxyAgent(proxy) : new Agent());
  }

  async get(
    key: string,
    { start, end, version }: BucketRange,
    signal: AbortSignal,
  ): Promise<ObjectPart | undefined> {
    const file = this.#bucket.file(key, version === undefined ? {} : { generation: version });
    const range = { start, end: end - 1, validation: false, decompress: false };
    const stream = file.createReadStream(range);
    let found: string | undefined;
    let isDestroyable = false;
    const destroy = () => {
      if (isDestroyable) stream.destroy(signal.reason);
    };
    signal.addEventListener("abort", destroy, { once: true });
    stream.once("response", ({ headers }) => {
      found = headers["x-goog-generation"];
      // Only then: a stream that is destroyed before the library pipes into it has it reject a promise of its own.
      setImmediate(() => {
        isDestroyable = true;
        if (signal.aborted) destroy();
      });
    });
    try {
      return { data: await unlessAborted(collectBytes(stream), signal), version: found };
    } catch (error) {
      if (statusOf(error) === 404) return undefined;
      if (statusOf(error) === 416) return { data: new Uint8Array(0), version }; // it begins behind the end
      throw error;
    } finally {
      signal.removeEventListener("abort", destroy);
    }
  }

  async head(key: string): Promise<Omit<ObjectHead, "key"> | undefined> {
    try {
      const [{ size, generation }] = await this.#bucket.file(key).getMetadata();
      return { size: Number(size), version: String(generation) };
    } catch (error) {
      if (statusOf(error) === 404) return undefined;
      throw error;
    }
  }

  async put(key: string, data: Buffer): Promise<void> {
    await this.#bucket.file(key).save(data, { resumable: false, validation: false });
  }

  async list(prefix: string, { token, after }: ListFrom): Promise<ObjectPage> {
    const query: GetFilesOptions = {
      prefix,
      autoPaginate: false,
      ...(after && { startOffset: after }),
      ...(token && { pageToken: token }),
    };
    const [files, next]: GetFilesResponse = await this.#bucket.getFiles(query);
    const objects = files.map((file: File) => ({
      key: file.name,
      size: Number(file.metadata.size),
    }));
    return { objects, next: next?.pageToken };
  }

  async delete(key: string, version: string | undefined): Promise<boolean> {
    try {
      const condition = version === undefined ? {} : { ifGenerationMatch: version };
      await this.#bucket.file(key).delete(condition);
      return true;
    } catch (error) {
      if (statusOf(error) === 404) return false;
      if (statusOf(error) === 412) return true;
      throw error;
    }
  }

  /** The library sends resumable uploads as streams, which can be neither repeated by the part nor ended. */
  async beginUpload(key: string): Promise<BucketUpload> {
    const [url] = await this.#bucket.file(key).createResumableUpload();
    const send = (range: string, body: Buffer, signal: AbortSignal) =>
      sendRequest(url, {
        method: "PUT",
        headers: { "content-range": range },
        body,
        signal,
        dispatcher: this.#dispatcher,
      });
    return {
      send: async ({ data, offset, isLast }, signal) => {
        const total = isLast ? offset + data.length : "*";
        for (let at = 0; at < data.length; ) {
          const range = `bytes ${offset + at}-${offset + data.length - 1}/${total}`;
          const { statusCode, headers, body } = await send(range, data.subarray(at), signal);
          await body.dump();
          if (statusCode === 200 || statusCode === 201) return;
          if (statusCode !== 308) throw new HttpError(statusCode);
          // What the service has of it, which may be less than was sent, or more, if an answer got lost.
          const [, last] = /^bytes=0-(\d+)$/.exec(String(headers.range ?? "")) ?? [];
          const reached = Number(last ?? -1) + 1 - offset;
          if (reached <= at) throw new HttpError(statusCode, ": it took nothing of a part");
          at = reached;
        }
      },
      finish: async () => undefined, // with the last part
      abandon: async (signal) => {
        const { body } = await sendRequest(url, {
          method: "DELETE",
          signal,
          dispatcher: this.#dispatcher,
        });
        await body.dump();
      },
    };
  }

  failureOf(error: unknown): Failure {
    const status = statusOf(error);
    if (status === 404) return { code: "invalid_argument", reason: NO_BUCKET };
    const text = textOf(error);
    const code = codeOfStatus(status);
    if (status === undefined) {
      const hasNone = text.includes("default credentials");
      if (hasNone) return { code: "permission_denied", reason: text };
      return { code, reason: `cannot reach the service: ${text}` };
    }
    return { code, reason: `HTTP status ${status}: ${text}` };
  }

  /** Whoever may use objects may not always look at a bucket, but list it. */
  async look(): Promise<unknown> {
    return await this.#bucket.getFiles({ maxResults: 1, autoPaginate: false });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispatcher.destroy();
  }
}

function statusOf(error: unknown): number | undefined {
  if (error instanceof HttpError) return error.status;
  const { code } = error as { code?: unknown };
  return Number(code) || undefined;
}
