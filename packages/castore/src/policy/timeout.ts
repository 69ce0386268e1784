import { unlessAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError } from "../model/errors.ts";

/**
 * Makes a request that has to be answered in time. Rejects at once when it is late or cancelled, though the request
 * may go on for a while.
 *
 * @param request is given a signal that is aborted then
 * @throws CastoreError `unavailable` when it is late; `signal.reason` when cancelled
 */
export async function withTimeout<T>(
  timeoutMs: number,
  request: (signal: AbortSignal) => Promise<T>,
  options?: AbortOptions,
): Promise<T> {
  options?.signal?.throwIfAborted();
  const late = new AbortController();
  const onLate = () =>
    late.abort(new CastoreError("unavailable", `no answer within ${timeoutMs} ms`));
  const timer = setTimeout(onLate, timeoutMs);
  const signal = AbortSignal.any([late.signal, ...(options?.signal ? [options.signal] : [])]);
  try {
    return await unlessAborted(request(signal), signal);
  } catch (error) {
    signal.throwIfAborted(); // an SDK rejects with an error of its own
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
