import { Agent, type Dispatcher, interceptors, request as sendRequest } from "undici";
import type { z } from "zod";
import { resolveRange } from "../blobservice/chunked-reader.ts";
import { CastoreError } from "../errors.ts";
import type { AbortOptions } from "../options.ts";
import { sliceStream } from "../slice-stream.ts";
import { CONNECT_TIMEOUT_MS, guarded, request, retryUnavailable } from "./cloud.ts";
import { assertObjectKey } from "./object-key.ts";
import type { GetObjectOptions, ObjectMeta, ObjectStore, ObjectUpload } from "./object-store.ts";
import { onePiece } from "./one-piece.ts";
import type { HTTP_OPTIONS } from "./options.ts";

/** Objects of up to this many bytes are got whole before they are handed out, so that a break is tried again. */
const WHOLE_BYTES = 1024 * 1024;

/** How long a server may be silent, in milliseconds, unless the options say so. */
const SILENCE_MS = 30_000;

/** How often a server may send somewhere else. */
const REDIRECTS = 3;

/** Answers that say that there is no such object. */
const ABSENT: ReadonlySet<number> = new Set([404, 410]);

/** An answer other than what was hoped for. */
class HttpError extends Error {
  readonly status: number;

  constructor(status: number) {
    super(`the server answered ${status}`);
    this.status = status;
  }
}

/** Reads objects from a server of HTTP, such as one that serves a folder of files. Nothing can be changed. */
export class HttpObjectStore implements ObjectStore {
  readonly name: string;
  readonly #agent: Agent;
  readonly #dispatcher: Dispatcher;

  /** @param base where the objects are: `http://host/folder/`, or `https:` */
  constructor(
    base: string,
    { timeout_ms: silence = SILENCE_MS }: z.output<typeof HTTP_OPTIONS> = {},
  ) {
    this.name = base;
    this.#agent = new Agent({
      connect: { timeout: CONNECT_TIMEOUT_MS },
      headersTimeout: silence,
      bodyTimeout: silence,
    });
    this.#dispatcher = this.#agent.compose(interceptors.redirect({ maxRedirections: REDIRECTS }));
  }

  async get(
    key: string,
    options: GetObjectOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const { start, end } = resolveRange(Number.MAX_SAFE_INTEGER, options);
    if (start === end) return (await this.head(key, options)) && onePiece(new Uint8Array(0));
    const isPart = start > 0 || end < Number.MAX_SAFE_INTEGER;
    const headers: Record<string, string> = isPart ? { range: `bytes=${start}-${end - 1}` } : {};
    const get = async () => {
      const { statusCode, headers: answer, body } = await this.#send("GET", key, headers, options);
      if (statusCode === 200 || statusCode === 206) {
        const length = Number(answer["content-length"] ?? Number.POSITIVE_INFINITY);
        const whole = isPart && statusCode === 200; // the server takes no ranges
        if (length <= WHOLE_BYTES) {
          const data = new Uint8Array(await body.arrayBuffer());
          return onePiece(whole ? data.subarray(start, end) : data);
        }
        const guard = <T>(run: () => Promise<T>) => this.#request("get", key, options, run);
        return guarded(whole ? sliceStream(body, start, end) : body, guard);
      }
      await body.dump();
      if (ABSENT.has(statusCode)) return undefined;
      if (statusCode === 416) return onePiece(new Uint8Array(0)); // it begins behind the end
      throw new HttpError(statusCode);
    };
    return await retryUnavailable(() => this.#request("get", key, options, get), options);
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectMeta | undefined> {
    const look = async () => {
      const { statusCode, headers, body } = await this.#send("HEAD", key, {}, options);
      await body.dump();
      const length = headers["content-length"];
      if (statusCode === 200 && length !== undefined) return { key, size: Number(length) };
      if (statusCode === 200) throw this.#unimplemented("look up", "the server tells no length");
      if (ABSENT.has(statusCode)) return undefined;
      throw new HttpError(statusCode);
    };
    return await retryUnavailable(() => this.#request("look up", key, options, look), options);
  }

  async put(): Promise<boolean> {
    throw this.#unimplemented("store to");
  }

  openUpload(): ObjectUpload {
    throw this.#unimplemented("store to");
  }

  list(): AsyncIterable<ObjectMeta> {
    throw this.#unimplemented("list");
  }

  async delete(): Promise<void> {
    throw this.#unimplemented("delete from");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }

  async #send(
    method: "GET" | "HEAD",
    key: string,
    headers: Record<string, string>,
    options?: AbortOptions,
  ): Promise<Dispatcher.ResponseData> {
    assertObjectKey(key);
    const signal = options?.signal;
    return await sendRequest(this.name + key, {
      method,
      headers,
      dispatcher: this.#dispatcher,
      ...(signal && { signal }),
    });
  }

  #request<T>(
    action: string,
    key: string,
    options: AbortOptions | undefined,
    run: () => Promise<T>,
  ): Promise<T> {
    return request(run, `Cannot ${action} "${this.name}${key}"`, statusOf, options);
  }

  #unimplemented(action: string, reason = "it is only read"): CastoreError {
    return new CastoreError("unimplemented", `Cannot ${action} "${this.name}": ${reason}`);
  }
}

function statusOf(error: unknown): number | undefined {
  return error instanceof HttpError ? error.status : undefined;
}
