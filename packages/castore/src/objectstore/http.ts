import { Agent, type Dispatcher, interceptors, ProxyAgent, request as sendRequest } from "undici";
import { z } from "zod";
import { TIMEOUT_MS } from "../address/integer-key.ts";
import { proxyFor } from "../address/proxy.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError } from "../model/errors.ts";
import { resolveRange } from "../model/range.ts";
import { retryRequest } from "../policy/retry.ts";
import { codeOfStatus, textOf } from "./bucket.ts";
import { ABSENT, HttpError, HttpParts, isEncoded, versionOf } from "./http-parts.ts";
import { assertObjectKey } from "./object-key.ts";
import type {
  GetObjectOptions,
  ObjectContents,
  ObjectHead,
  ObjectMeta,
  ObjectStore,
  ObjectUpload,
} from "./object-store.ts";
import { contentsOf, readParts } from "./read-parts.ts";

/** What the store of an address is told. */
export const HTTP_OPTIONS: z.ZodType<{ timeout_ms?: number | undefined }> = z.strictObject({
  timeout_ms: TIMEOUT_MS,
});

/** How long a server may be silent, in milliseconds, unless an option says so. */
const SILENCE_MS = 30_000;

/** How long a connection may take, in milliseconds. */
const CONNECT_TIMEOUT_MS = 10_000;

/** How many bytes of headers an answer may have, as curl has it. */
const MAX_HEADER_BYTES = 300 * 1024;

/** How often a server may send somewhere else. */
const REDIRECTS = 3;

/** Reads objects from a server of HTTP, such as one that serves a folder of files. Nothing can be changed. */
export class HttpObjectStore implements ObjectStore {
  readonly name: string;
  readonly #agent: Dispatcher;
  readonly #dispatcher: Dispatcher;

  /** @param base where the objects are: `http://host/folder/`, or `https:` */
  constructor(
    base: string,
    { timeout_ms: silence = SILENCE_MS }: z.output<typeof HTTP_OPTIONS> = {},
  ) {
    this.name = base;
    const proxy = proxyFor(base);
    const settings = {
      connect: { timeout: CONNECT_TIMEOUT_MS },
      headersTimeout: silence,
      bodyTimeout: silence,
      maxHeaderSize: MAX_HEADER_BYTES,
    };
    this.#agent = proxy ? new ProxyAgent({ ...settings, uri: proxy }) : new Agent(settings);
    this.#dispatcher = this.#agent.compose(interceptors.redirect({ maxRedirections: REDIRECTS }));
  }

  async get(key: string, options: GetObjectOptions = {}): Promise<ObjectContents | undefined> {
    const { start, end } = resolveRange(Number.MAX_SAFE_INTEGER, options);
    if (start === end) {
      const found = await this.head(key, options);
      return found && contentsOf(new Uint8Array(0), found.version);
    }
    const source = new HttpParts((headers) => this.#send("GET", key, headers, options), options);
    const parts = await readParts(this.name + key, { start, end }, (from, to, version) =>
      this.#request("get", key, options, () => source.get(from, to, version)),
    );
    return parts && Object.assign(releasing(parts, source), { version: parts.version });
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectHead | undefined> {
    return await this.#request("look up", key, options, async () => {
      const { statusCode, headers, body } = await this.#send("HEAD", key, {}, options);
      await body.dump();
      const length = isEncoded(headers) ? undefined : headers["content-length"];
      if (statusCode === 200 && length !== undefined) {
        return { key, size: Number(length), version: versionOf(headers) };
      }
      if (statusCode === 200) throw this.#unimplemented("look up", "the server tells no length");
      if (ABSENT.has(statusCode)) return undefined;
      throw new HttpError(statusCode);
    });
  }

  async put(): Promise<void> {
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
      headers: { "accept-encoding": "identity", ...headers },
      dispatcher: this.#dispatcher,
      ...(signal && { signal }),
    });
  }

  /** Makes a request and reads its answer, repeatedly where that may help. */
  async #request<T>(
    action: string,
    key: string,
    options: AbortOptions | undefined,
    run: () => Promise<T>,
  ): Promise<T> {
    const signal = options?.signal;
    const attempt = async () => {
      try {
        return await run();
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof CastoreError) throw error;
        const code = codeOfStatus(error instanceof HttpError ? error.status : undefined);
        const text = `Cannot ${action} "${this.name}${key}": ${textOf(error)}`;
        throw new CastoreError(code, text, { cause: error });
      }
    };
    return await retryRequest(attempt, { signal });
  }

  #unimplemented(action: string, reason = "it is only read"): CastoreError {
    return new CastoreError("unimplemented", `Cannot ${action} "${this.name}": ${reason}`);
  }
}

/** Hands on parts, and releases what they come from. */
async function* releasing(
  parts: AsyncIterable<Uint8Array>,
  source: HttpParts,
): AsyncGenerator<Uint8Array> {
  await using _ = source;
  yield* parts;
}
