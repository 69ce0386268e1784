import pRetry from "p-retry";
import { unlessAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError, type ErrorCode } from "../model/errors.ts";

/** How often a request is made at most, be it by us or by an SDK, which never try again one another's. */
export const ATTEMPTS = 4;

/** How long a connection may take, in milliseconds. */
export const CONNECT_TIMEOUT_MS = 10_000;

const CODES: Readonly<Record<number, ErrorCode>> = {
  400: "invalid_argument",
  401: "permission_denied",
  403: "permission_denied",
  404: "not_found",
  409: "aborted",
  413: "resource_exhausted",
  507: "resource_exhausted",
};

/** Gives the HTTP status that an error carries; `undefined` if there was no answer, or it broke off. */
export type StatusOf = (error: unknown) => number | undefined;

function codeOf(error: unknown, statusOf: StatusOf): ErrorCode {
  if (error instanceof CastoreError) return error.code;
  return CODES[statusOf(error) ?? 0] ?? "unavailable";
}

/**
 * Runs a request, and turns what it throws into a CastoreError by the HTTP status of the answer:
 * `unavailable` where there was none, or one that may be another the next time.
 *
 * @param action what is attempted and where, for the message
 * @throws CastoreError; `signal.reason` when cancelled, also where the SDK goes on
 */
export async function request<T>(
  run: () => Promise<T>,
  action: string,
  statusOf: StatusOf,
  options?: AbortOptions,
): Promise<T> {
  options?.signal?.throwIfAborted();
  try {
    return await unlessAborted(run(), options?.signal);
  } catch (error) {
    options?.signal?.throwIfAborted();
    if (error instanceof CastoreError) throw error;
    const message = (error as Error).message.replace(/\?[^\s"']*=[^\s"']*/g, "?..."); // signatures
    throw new CastoreError(codeOf(error, statusOf), `${action}: ${message}`, { cause: error });
  }
}

/**
 * Makes a request that no SDK tries again: up to {@link ATTEMPTS} times, with growing and random pauses, while what it
 * throws is `unavailable`. Its answer is read as a part of it.
 */
export async function retryRequest<T>(
  run: () => Promise<T>,
  statusOf: StatusOf,
  options?: AbortOptions,
): Promise<T> {
  return await pRetry(run, {
    retries: ATTEMPTS - 1,
    minTimeout: 100,
    randomize: true,
    shouldRetry: ({ error }) => codeOf(error, statusOf) === "unavailable",
    ...(options?.signal && { signal: options.signal }),
  });
}

/**
 * Runs a request that has to be done in time.
 *
 * @param run is given a signal that ends it
 * @throws Error when it is late; `signal.reason` when cancelled
 */
export async function withTimeout<T>(
  timeoutMs: number,
  run: (signal: AbortSignal) => Promise<T>,
  options?: AbortOptions,
): Promise<T> {
  const late = new AbortController();
  const onLate = () => late.abort(new Error(`no answer within ${timeoutMs} ms`));
  const timer = setTimeout(onLate, timeoutMs);
  const signal = AbortSignal.any([late.signal, ...(options?.signal ? [options.signal] : [])]);
  try {
    return await unlessAborted(run(signal), signal);
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
