import { type AbortOptions, type ErrorCode, unlessAborted } from "@tvix/castore";
import { Agent, type Dispatcher, interceptors, request } from "undici";
import { StoreError } from "../errors.ts";

/** How long a connection may take, in milliseconds. */
const CONNECT_TIMEOUT_MS = 10_000;

/** How often a server may send somewhere else. */
const REDIRECTS = 5;

/** Answers that say that something is not there: S3 says 403 to who may not list. */
const ABSENT: ReadonlySet<number> = new Set([403, 404, 410]);

const CODES: Readonly<Record<number, ErrorCode>> = {
  401: "permission_denied",
  407: "permission_denied",
  408: "unavailable",
  429: "unavailable",
};

/** Gets files of a binary cache over HTTP. Nothing is tried twice. */
export class BinaryCacheClient implements AsyncDisposable {
  readonly #base: string;
  readonly #agent: Agent;
  readonly #dispatcher: Dispatcher;

  /**
   * @param base where the cache is, with a slash at its end
   * @param options.timeoutMs how long the server may be silent, in milliseconds
   */
  constructor(base: string, { timeoutMs }: { timeoutMs: number }) {
    this.#base = base;
    this.#agent = new Agent({
      connect: { timeout: Math.min(CONNECT_TIMEOUT_MS, timeoutMs) },
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
    });
    this.#dispatcher = this.#agent.compose(interceptors.redirect({ maxRedirections: REDIRECTS }));
  }

  /**
   * Begins to get a file.
   *
   * @param url of `http:` or `https:`, or relative to the cache
   * @returns its contents, to be iterated once, in pieces that belong to whoever iterates; `undefined` if it is not
   *   there
   * @throws StoreError, also from iterating: `unavailable` if the server cannot be reached, is silent, breaks off or
   *   answers that it is in trouble; `permission_denied`; `data_loss` for any other answer, and what is no URL
   */
  async get(url: string, options?: AbortOptions): Promise<AsyncIterable<Uint8Array> | undefined> {
    const place = /^https?:\/\//.test(url) ? url : this.#base + url;
    const signal = options?.signal;
    const guard = <T>(promise: Promise<T>) => this.#guard(promise, url, options);
    if (!URL.canParse(place)) throw refusal("data_loss", url, "expected a URL");
    const { statusCode, body } = await guard(
      request(place, { dispatcher: this.#dispatcher, ...(signal && { signal }) }),
    );
    if (statusCode === 200) return guarded(body, guard);
    body.on("error", () => undefined).destroy();
    if (ABSENT.has(statusCode)) return undefined;
    const code = CODES[statusCode] ?? (statusCode >= 500 ? "unavailable" : "data_loss");
    throw refusal(code, url, `the server answered ${statusCode}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }

  async #guard<T>(promise: Promise<T>, url: string, options?: AbortOptions): Promise<T> {
    try {
      return await unlessAborted(promise, options?.signal);
    } catch (error) {
      options?.signal?.throwIfAborted();
      throw refusal("unavailable", url, describe(error), error);
    }
  }
}

/** What went wrong, which is not always in the message itself: a host may have several addresses. */
function describe(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(describe).join(", ");
  return (error as Error).message;
}

async function* guarded(
  stream: AsyncIterable<Uint8Array>,
  guard: <T>(promise: Promise<T>) => Promise<T>,
): AsyncGenerator<Uint8Array> {
  const iterator = stream[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { done, value } = await guard(iterator.next());
      if (done) return;
      yield value;
    }
  } finally {
    iterator.return?.()?.catch(() => undefined); // whatever it says, nobody reads on
  }
}

function refusal(code: ErrorCode, url: string, reason: string, cause?: unknown): StoreError {
  return new StoreError(code, `Cannot get "${url}": ${reason}`, { cause });
}
