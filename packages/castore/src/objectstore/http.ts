import { Agent, type Dispatcher, interceptors, request as sendRequest } from "undici";
import type { z } from "zod";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError } from "../model/errors.ts";
import { resolveRange } from "../model/range.ts";
import { ABSENT, HttpError, HttpParts } from "./http-parts.ts";
import { assertObjectKey } from "./object-key.ts";
import type { GetObjectOptions, ObjectMeta, ObjectStore, ObjectUpload } from "./object-store.ts";
import { onePiece } from "./one-piece.ts";
import type { HTTP_OPTIONS } from "./options.ts";
import { readParts } from "./read-parts.ts";
import { CONNECT_TIMEOUT_MS, request, retryRequest } from "./retry.ts";

/** How long a server may be silent, in milliseconds, unless the options say so. */
const SILENCE_MS = 30_000;

/** How often a server may send somewhere else. */
const REDIRECTS = 3;

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
    const source = new HttpParts((headers) => this.#send("GET", key, headers, options));
    const parts = await readParts(this.name + key, { start, end }, (from, to, version) => {
      const get = () => source.get(from, to, version);
      return this.#request("get", key, options, () => retryRequest(get, statusOf, options));
    });
    return parts && releasing(parts, source);
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
    return await this.#request("look up", key, options, () =>
      retryRequest(look, statusOf, options),
    );
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

/** Gives parts, and lets go of what they come from. */
async function* releasing(
  parts: AsyncIterable<Uint8Array>,
  source: HttpParts,
): AsyncGenerator<Uint8Array> {
  await using _ = source;
  yield* parts;
}

function statusOf(error: unknown): number | undefined {
  return error instanceof HttpError ? error.status : undefined;
}
