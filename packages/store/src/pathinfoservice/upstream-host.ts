import { type AbortOptions, proxyFor, unlessAborted } from "@tvix/castore";
import {
  BrokenCircuitError,
  type CircuitBreakerPolicy,
  ConsecutiveBreaker,
  circuitBreaker,
  ExponentialBackoff,
  handleWhen,
} from "cockatiel";
import { Agent, type Dispatcher, Pool, ProxyAgent, request } from "undici";
import { escapeText, quoteText, StoreError } from "../errors.ts";

/** How long a connection may take, in milliseconds. */
const CONNECT_TIMEOUT_MS = 10_000;

/** How many bytes of headers a response may have: curl takes 300 KiB. */
const MAX_HEADER_BYTES = 300 * 1024;

/** How many failures in a row, not all of one file, open the circuit breaker. */
const FAILURES_TO_OPEN = 3;

/** Longest time for which the circuit breaker stays open, in milliseconds. */
const MAX_REST_MS = 60_000;

/** Statuses below 500 that are retried. */
const PASSING: ReadonlySet<number> = new Set([408, 429]);

/** A failure that is retried: no response, a response that broke off, or a status such as 503. */
export class RequestFailure extends StoreError {
  constructor(url: URL, reason: string, cause?: unknown) {
    super("unavailable", `Cannot get ${quoteText(url.href)}: ${escapeText(reason)}`, { cause });
  }
}

/** Options of {@link UpstreamHost}. */
export interface UpstreamHostOptions {
  /** How long the host may be silent, in milliseconds. */
  timeoutMs: number;
  /** How long the circuit breaker stays open at first, in milliseconds. Grows each time in a row, up to a minute. */
  restMs: number;
}

/** Options of {@link UpstreamHost.get}. */
export interface UpstreamRequestOptions extends AbortOptions {
  /** Headers of the request. */
  headers?: Readonly<Record<string, string>>;
}

/**
 * Makes requests to one host, through the proxy that the environment names for it.
 *
 * A circuit breaker opens after three failures in a row: connections that fail, and files without a response or with a
 * status such as 503, each file once. One file that always fails never opens it. While it is open, requests fail at
 * once; then one request tests the host.
 */
export class UpstreamHost implements AsyncDisposable {
  readonly #origin: string;
  readonly #dispatcher: Dispatcher;
  readonly #breaker: CircuitBreakerPolicy;
  /** Failures since the last good response: the paths of files, and a number for each failed connection. */
  readonly #failures = new Set<string | number>();
  #lastFailure: RequestFailure | undefined;

  /** @throws CastoreError `invalid_argument` if the proxy is not one of HTTP */
  constructor({ origin }: URL, { timeoutMs, restMs }: UpstreamHostOptions) {
    this.#origin = origin;
    this.#dispatcher = openDispatcher(proxyFor(origin), timeoutMs);
    this.#breaker = circuitBreaker(
      handleWhen((error) => this.#opensBreaker(error)),
      {
        breaker: new ConsecutiveBreaker(1),
        halfOpenAfter: new ExponentialBackoff({ initialDelay: restMs, maxDelay: MAX_REST_MS }),
      },
    );
  }

  /**
   * Makes one request. The caller reads or destroys the body of the response.
   *
   * @throws RequestFailure if there is no response, or its status is to be retried; StoreError
   *   `unavailable` while the circuit breaker is open, `data_loss` for headers that are too long
   */
  async get(url: URL, options?: UpstreamRequestOptions): Promise<Dispatcher.ResponseData> {
    try {
      return await this.#breaker.execute(() => this.#request(url, options));
    } catch (error) {
      if (!(error instanceof BrokenCircuitError)) throw error;
      const reason = `the circuit breaker of "${this.#origin}" is open after: ${this.#lastFailure?.message}`;
      throw new StoreError("unavailable", reason, { cause: this.#lastFailure });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispatcher.destroy();
  }

  async #request(url: URL, options?: UpstreamRequestOptions): Promise<Dispatcher.ResponseData> {
    const { signal, headers = {} } = options ?? {};
    let response: Dispatcher.ResponseData;
    try {
      const dispatcher = this.#dispatcher;
      const sent = request(url, { dispatcher, headers, ...(signal && { signal }) });
      response = await unlessAborted(sent, signal);
    } catch (error) {
      signal?.throwIfAborted();
      if (codeOf(error) === "UND_ERR_HEADERS_OVERFLOW") {
        const reason = `expected at most ${MAX_HEADER_BYTES} bytes of headers, found more`;
        throw new StoreError("data_loss", `Cannot get ${quoteText(url.href)}: ${reason}`);
      }
      const isConnected = codeOf(error) === "UND_ERR_HEADERS_TIMEOUT";
      this.#failures.add(isConnected ? url.pathname : this.#failures.size);
      throw new RequestFailure(url, messageOf(error), error);
    }
    const { statusCode, body } = response;
    if (statusCode < 500 && !PASSING.has(statusCode)) {
      this.#failures.clear();
      return response;
    }
    body.on("error", () => undefined).destroy();
    this.#failures.add(url.pathname);
    throw new RequestFailure(url, `the server answered ${statusCode}`);
  }

  #opensBreaker(error: unknown): boolean {
    if (!(error instanceof RequestFailure)) return false;
    this.#lastFailure = error;
    return this.#failures.size >= FAILURES_TO_OPEN;
  }
}

function openDispatcher(proxy: string | undefined, timeoutMs: number): Dispatcher {
  const connectTimeout = Math.min(CONNECT_TIMEOUT_MS, timeoutMs);
  const limits = {
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
    maxHeaderSize: MAX_HEADER_BYTES,
  };
  if (proxy === undefined) return new Agent({ ...limits, connect: { timeout: connectTimeout } });
  return new ProxyAgent({
    uri: proxy,
    connectTimeout,
    // The agent does not pass its own limits on to its connections.
    factory: (origin, options) => new Pool(origin, { ...options, ...limits }),
  });
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

/** Returns the message of an error, or of all errors in it: a host may have several addresses. */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(messageOf).join(", ");
  return (error as Error).message;
}
