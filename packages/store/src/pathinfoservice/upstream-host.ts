import { context, propagation } from "@opentelemetry/api";
import { type AbortOptions, proxyFor, unlessAborted } from "@tvix/castore";
import {
  BrokenCircuitError,
  type CircuitBreakerPolicy,
  CircuitState,
  ConsecutiveBreaker,
  circuitBreaker,
  ExponentialBackoff,
  handleWhen,
} from "cockatiel";
import { Agent, type Dispatcher, Pool, ProxyAgent, request } from "undici";
import { escapeText, quoteText, StoreError } from "../errors.ts";

/** How many requests are under way at the same time. Further ones wait. */
const MAX_CONNECTIONS = 48;

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
  /** How long a connection may take, in milliseconds. */
  connectTimeoutMs: number;
  /** How long the host may be silent, in milliseconds. */
  timeoutMs: number;
  /** How long the circuit breaker stays open at first, in milliseconds. Grows each time in a row, up to a minute. */
  restMs: number;
  /** Whether the host is tested in the background, see {@link UpstreamHost}. */
  testsInBackground: boolean;
}

/** Options of {@link UpstreamHost.get}. */
export interface UpstreamRequestOptions extends AbortOptions {
  /** Headers of the request. */
  headers?: Readonly<Record<string, string>>;
  /** How long the host may be silent, in milliseconds. Default: that of the host. */
  timeoutMs?: number | undefined;
}

/**
 * Makes requests to one host, through the proxy that the environment names for it.
 *
 * A circuit breaker opens after three failures in a row: connections that fail, and files without a response or with a
 * status such as 503, each file once. One file that always fails never opens it. While it is open, requests fail at
 * once; then one request tests the host. Where hosts are tested in the background, that request fails at once as well,
 * and a copy of it is the test: nobody waits for a host that is down.
 */
export class UpstreamHost implements AsyncDisposable {
  readonly #origin: string;
  readonly #dispatcher: Dispatcher;
  readonly #breaker: CircuitBreakerPolicy;
  /** Failures since the last good response: the paths of files, and a number for each failed connection. */
  readonly #failures = new Set<string | number>();
  readonly #testsInBackground: boolean;
  #isTesting = false;
  #lastFailure: RequestFailure | undefined;

  /** @throws CastoreError `invalid_argument` if the proxy is not one of HTTP */
  constructor({ origin }: URL, options: UpstreamHostOptions) {
    const { restMs, testsInBackground } = options;
    this.#origin = origin;
    this.#testsInBackground = testsInBackground;
    this.#dispatcher = openDispatcher(proxyFor(origin), options);
    this.#breaker = circuitBreaker(
      handleWhen((error) => this.#opensBreaker(error)),
      {
        breaker: new ConsecutiveBreaker(1),
        halfOpenAfter: new ExponentialBackoff({ initialDelay: restMs, maxDelay: MAX_REST_MS }),
      },
    );
  }

  /** Whether the circuit breaker is open, or the host is being tested. */
  get isDown(): boolean {
    return this.#breaker.state !== CircuitState.Closed;
  }

  /**
   * Makes one request. The caller reads or destroys the body of the response.
   *
   * @throws RequestFailure if there is no response, or its status is to be retried; StoreError
   *   `unavailable` while the circuit breaker is open, `data_loss` for headers that are too long
   */
  async get(url: URL, options: UpstreamRequestOptions = {}): Promise<Dispatcher.ResponseData> {
    if (this.#testsInBackground && this.isDown) {
      void this.#test(url, { ...options, signal: undefined });
      throw this.#refusal();
    }
    try {
      return await this.#breaker.execute(() => this.#request(url, options));
    } catch (error) {
      throw error instanceof BrokenCircuitError ? this.#refusal() : error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispatcher.destroy();
  }

  /** Tests the host if the circuit breaker has been open for long enough. */
  async #test(url: URL, options: UpstreamRequestOptions): Promise<void> {
    if (this.#isTesting) return;
    this.#isTesting = true;
    try {
      const { body } = await this.#breaker.execute(() => this.#request(url, options));
      body.on("error", () => undefined).destroy();
    } catch {
      // It is still down, or has not rested yet.
    } finally {
      this.#isTesting = false;
    }
  }

  #refusal(): StoreError {
    const reason = `the circuit breaker of "${this.#origin}" is open after: ${this.#lastFailure?.message}`;
    return new StoreError("unavailable", reason, { cause: this.#lastFailure });
  }

  async #request(url: URL, options?: UpstreamRequestOptions): Promise<Dispatcher.ResponseData> {
    const { signal, timeoutMs } = options ?? {};
    const headers = { ...options?.headers };
    propagation.inject(context.active(), headers);
    let response: Dispatcher.ResponseData;
    try {
      const sent = request(url, {
        dispatcher: this.#dispatcher,
        headers,
        ...(signal && { signal }),
        ...(timeoutMs !== undefined && { headersTimeout: timeoutMs, bodyTimeout: timeoutMs }),
      });
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

function openDispatcher(
  proxy: string | undefined,
  { connectTimeoutMs, timeoutMs }: UpstreamHostOptions,
): Dispatcher {
  const limits = {
    connections: MAX_CONNECTIONS,
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
    maxHeaderSize: MAX_HEADER_BYTES,
  };
  if (proxy === undefined) return new Agent({ ...limits, connect: { timeout: connectTimeoutMs } });
  return new ProxyAgent({
    uri: proxy,
    connectTimeout: connectTimeoutMs,
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
