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

/** The error of a call that the circuit breaker does not let through: the outage was told when it began. */
export { BrokenCircuitError } from "cockatiel";

/**
 * Calls something that can be done without. A call that takes too long is given up. That, and an error that says that
 * everything else would fail too, opens a circuit breaker for the same time; then one call finds out whether it works
 * again, and the others are refused meanwhile.
 */
export class LocalPolicy {
  readonly #timeoutMs: number;
  readonly #breaker;
  readonly #policy;

  /** @param timeoutMs how long a call may take, and how long the circuit breaker stays open, in milliseconds */
  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
    this.#breaker = circuitBreaker(handleWhen(isOutage), {
      breaker: new ConsecutiveBreaker(1),
      halfOpenAfter: timeoutMs,
    });
    // What was opened by a call in time is used after it.
    const options = { strategy: TimeoutStrategy.Aggressive, abortOnReturn: false } as const;
    this.#policy = wrap(this.#breaker, timeout(timeoutMs, options));
  }

  /**
   * Makes a call.
   *
   * @param call is given a signal that is aborted when the call takes too long
   * @throws BrokenCircuitError while the circuit breaker is open; CastoreError `unavailable` for a call that takes too
   *   long; what the call rejects with
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
