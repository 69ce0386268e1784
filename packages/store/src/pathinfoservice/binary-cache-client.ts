import {
  type AbortOptions,
  COMPRESSIONS,
  type Compression,
  decompress,
  type ErrorCode,
  retryRequest,
  TokenFile,
  unlessAborted,
} from "@tvix/castore";
import type { Dispatcher } from "undici";
import { escapeText, quoteText, StoreError } from "../errors.ts";
import {
  messageOf,
  RequestFailure,
  UpstreamHost,
  type UpstreamHostOptions,
  type UpstreamRequestOptions,
} from "./upstream-host.ts";

/** How often a file is asked for at most. */
const ATTEMPTS = 3;

/** How many redirects are followed. */
const MAX_REDIRECTS = 5;

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** Statuses that say that there is no such file: S3 answers 403 to who may not list. */
const ABSENT: ReadonlySet<number> = new Set([403, 404, 410]);

const CODES: Readonly<Record<number, ErrorCode>> = {
  401: "permission_denied",
  407: "permission_denied",
};

/** Reads the contents of a file, and owns their pieces. It is called again if they break off. */
type ReadContents<T> = (contents: AsyncIterable<Uint8Array>) => Promise<T>;

/** Options of {@link BinaryCacheClient}. */
export interface BinaryCacheClientOptions extends UpstreamHostOptions {
  /** Path of a file with an access token, which is sent to the host of the cache and to no other. Default: none. */
  tokenFile?: string | undefined;
}

/** Limits of one request. */
export interface RequestLimits {
  /** How long the server may be silent, in milliseconds. Default: that of the client. */
  timeoutMs?: number;
  /** How often the file is asked for at most. Default: 3. */
  attempts?: number;
}

/** Gets files of a binary cache over HTTP. */
export class BinaryCacheClient implements AsyncDisposable {
  readonly #base: URL;
  readonly #options: UpstreamHostOptions;
  readonly #token: TokenFile | undefined;
  readonly #hosts = new Map<string, UpstreamHost>();

  /**
   * @param base URL of the cache, with a slash at its end
   * @throws CastoreError `invalid_argument` if the proxy that the environment names is not one of HTTP
   */
  constructor(base: string, { tokenFile, ...options }: BinaryCacheClientOptions) {
    this.#base = new URL(base);
    this.#options = options;
    this.#token = tokenFile === undefined ? undefined : new TokenFile(tokenFile);
    this.#hostOf(this.#base);
  }

  /** Whether the circuit breaker of the cache's own host is open. */
  get isDown(): boolean {
    return this.#hostOf(this.#base).isDown;
  }

  /**
   * Gets a file, decodes its Content-Encoding, and reads it. Failed requests are retried from the start, a few times.
   *
   * @param url of `http:` or `https:`, or relative to the cache
   * @returns what `read` returns; `undefined` if there is no such file
   * @throws StoreError `unavailable` if the server cannot be reached, is silent, breaks off, or answers 5xx, 408, 429;
   *   `permission_denied` for 401 and 407; `unimplemented` for an unknown Content-Encoding; `data_loss` for any other
   *   response, and for an invalid URL; whatever `read` throws
   */
  async get<T>(
    url: string,
    read: ReadContents<T>,
    { timeoutMs, attempts = ATTEMPTS, signal }: RequestLimits & AbortOptions = {},
  ): Promise<T | undefined> {
    const attempt = async (): Promise<{ value: T | undefined } | { error: unknown }> => {
      try {
        return { value: await this.#get(this.#resolve(url), read, { timeoutMs, signal }) };
      } catch (error) {
        if (error instanceof RequestFailure) throw error;
        return { error }; // not retried, whatever its code: it may come from another service
      }
    };
    const outcome = await retryRequest(attempt, { attempts, signal });
    if ("error" in outcome) throw outcome.error;
    return outcome.value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#hosts.values()].map((host) => host[Symbol.asyncDispose]()));
  }

  async #get<T>(
    start: URL,
    read: ReadContents<T>,
    options: UpstreamRequestOptions,
  ): Promise<T | undefined> {
    let url = start;
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
      const sent = { ...options, headers: await this.#headersFor(url) };
      const response = await this.#hostOf(url).get(url, sent);
      const { statusCode, headers, body } = response;
      if (statusCode === 200) return await read(contentsOf(url, response, options));
      body.on("error", () => undefined).destroy();
      if (ABSENT.has(statusCode)) return undefined;
      const location = REDIRECTS.has(statusCode) ? headers.location : undefined;
      if (location === undefined) {
        const code = CODES[statusCode] ?? "data_loss";
        throw refusal(code, url.href, `the server answered ${statusCode}`);
      }
      url = this.#resolve(String(location), url);
    }
    throw refusal(
      "data_loss",
      start.href,
      `expected at most ${MAX_REDIRECTS} redirects, found more`,
    );
  }

  #resolve(text: string, base = this.#base): URL {
    const url = URL.canParse(text, base.href) ? new URL(text, base) : undefined;
    if (url && ["http:", "https:"].includes(url.protocol)) return url;
    throw refusal("data_loss", text, "expected a URL of http or https");
  }

  async #headersFor({ origin }: URL): Promise<Record<string, string>> {
    if (this.#token === undefined || origin !== this.#base.origin) return {};
    return { authorization: await this.#token.authorization() };
  }

  #hostOf(url: URL): UpstreamHost {
    const host = this.#hosts.get(url.origin) ?? new UpstreamHost(url, this.#options);
    this.#hosts.set(url.origin, host);
    return host;
  }
}

/** Returns the contents of a response, decoded. */
function contentsOf(
  url: URL,
  { headers, body }: Dispatcher.ResponseData,
  options?: AbortOptions,
): AsyncIterable<Uint8Array> {
  const encodings = String(headers["content-encoding"] ?? "")
    .toLowerCase()
    .split(",");
  return encodings
    .map((encoding) => encoding.trim())
    .filter((encoding) => encoding !== "" && encoding !== "identity")
    .reduceRight<AsyncIterable<Uint8Array>>(
      (contents, encoding) => {
        const compression = encoding.replace(/^x-/, "") as Compression;
        if (COMPRESSIONS.includes(compression)) {
          return decompress(contents, compression, { ...options, name: quoteText(url.href) });
        }
        body.on("error", () => undefined).destroy();
        const known = COMPRESSIONS.join(", ");
        const reason = `expected a Content-Encoding of ${known}, found ${quoteText(encoding)}`;
        throw refusal("unimplemented", url.href, reason);
      },
      received(url, body, options),
    );
}

/** Passes the bytes of a body on, and throws RequestFailure if they break off. */
async function* received(
  url: URL,
  body: AsyncIterable<Uint8Array>,
  options?: AbortOptions,
): AsyncGenerator<Uint8Array> {
  const iterator = body[Symbol.asyncIterator]();
  try {
    for (;;) {
      let next: IteratorResult<Uint8Array>;
      try {
        next = await unlessAborted(iterator.next(), options?.signal);
      } catch (error) {
        options?.signal?.throwIfAborted();
        throw new RequestFailure(url, messageOf(error), error);
      }
      if (next.done) return;
      yield next.value;
    }
  } finally {
    iterator.return?.()?.catch(() => undefined); // the body is not read further
  }
}

function refusal(code: ErrorCode, url: string, reason: string): StoreError {
  return new StoreError(code, `Cannot get ${quoteText(url)}: ${escapeText(reason)}`);
}
