import { ExponentialBackoff, handleWhen, retry } from "cockatiel";
import { unlessAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError, type ErrorCode } from "../model/errors.ts";

/** How often a request is made at most. What is repeated by this policy is repeated by no SDK below it. */
export const ATTEMPTS = 4;

/** The first pause and the longest one, in milliseconds. Pauses grow exponentially, with jitter. */
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;

/** Options of {@link retryRequest}. */
export interface RetryOptions extends AbortOptions {
  /** How often the request is made at most. Default: {@link ATTEMPTS}. */
  attempts?: number;
  /** Codes of errors that may pass. Default: `unavailable` alone. */
  codes?: ReadonlySet<ErrorCode>;
}

const UNAVAILABLE: ReadonlySet<ErrorCode> = new Set(["unavailable"]);

/**
 * Makes a request, and makes it again after a pause while it fails with an error that may pass.
 *
 * @param request makes the request and reads its answer to the end: only as a whole can it be repeated
 * @throws the last error; `signal.reason` as soon as it is cancelled, also during a pause
 */
export async function retryRequest<T>(
  request: () => Promise<T>,
  { attempts = ATTEMPTS, codes = UNAVAILABLE, signal }: RetryOptions = {},
): Promise<T> {
  const mayPass = (error: unknown) => error instanceof CastoreError && codes.has(error.code);
  const policy = retry(handleWhen(mayPass), {
    maxAttempts: attempts - 1,
    backoff: new ExponentialBackoff({
      initialDelay: FIRST_PAUSE_MS,
      maxDelay: LONGEST_PAUSE_MS,
    }),
  });
  const attempt = async () => {
    signal?.throwIfAborted();
    return await request();
  };
  return await unlessAborted(policy.execute(attempt, signal), signal);
}
