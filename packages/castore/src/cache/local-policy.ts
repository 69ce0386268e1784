import {
  BrokenCircuitError,
  CircuitState,
  ConsecutiveBreaker,
  circuitBreaker,
  handleWhen,
  TaskCancelledError,
  TimeoutStrategy,
  timeout,
  wrap,
} from "cockatiel";
import { CastoreError } from "../model/errors.ts";

/** The error of a call that an open circuit breaker refused. The failure that opened it was reported. */
export { BrokenCircuitError } from "cockatiel";

/**
 * Guards calls of an optional service by a timeout and a circuit breaker. A timeout, or an error that would affect all
 * calls, opens the circuit breaker for as long as the timeout. Then it is half-open: one call probes the service, and
 * others are refused until the probe succeeds.
 */
export class LocalPolicy {
  readonly #timeoutMs: number;
  readonly #breaker;
  readonly #policy;

  /** @param timeoutMs timeout of a call, and the time that the circuit breaker stays open, in milliseconds */
  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
    this.#breaker = circuitBreaker(handleWhen(isOutage), {
      breaker: new ConsecutiveBreaker(1),
      halfOpenAfter: timeoutMs,
    });
    // A stream outlives the call that opened it.
    const options = { strategy: TimeoutStrategy.Aggressive, abortOnReturn: false } as const;
    this.#policy = wrap(this.#breaker, timeout(timeoutMs, options));
  }

  /**
   * Makes a call.
   *
   * @param call receives a signal that is aborted at the timeout
   * @throws BrokenCircuitError while the circuit breaker is open; CastoreError `unavailable` at the timeout; the errors
   *   of the call
   */
  async execute<R>(call: (signal: AbortSignal) => Promise<R>): Promise<R> {
    if (this.#breaker.state === CircuitState.HalfOpen) throw new BrokenCircuitError();
    try {
      return await this.#policy.execute(({ signal }) => call(signal));
    } catch (error) {
      if (!(error instanceof TaskCancelledError)) throw error;
      throw new CastoreError("unavailable", `no answer for ${this.#timeoutMs} ms`);
    }
  }
}

function isOutage(error: unknown): boolean {
  if (error instanceof TaskCancelledError) return true;
  const code = error instanceof CastoreError ? error.code : undefined;
  return code === "unavailable" || code === "resource_exhausted";
}
