import { once } from "node:events";
import type { Logger } from "pino";
import type { ServiceManager } from "./service-manager.ts";

/** Signals to stop: in good order, and at once. */
export interface StopSignals {
  readonly signal: AbortSignal;
  readonly urgent: AbortSignal;
}

/** What serves until it is stopped. */
export interface Stoppable {
  /** Resolves once there can be no further connection. */
  readonly exhausted: Promise<void>;
  /** Takes no more calls, and resolves when those in flight have ended. */
  shutdown(): Promise<void>;
  /** Ends everything at once, and {@link shutdown} with it. */
  terminate(): Promise<void>;
}

/** Options of {@link serveUntilStopped}. */
export interface ServingOptions {
  readonly interrupt: StopSignals;
  readonly manager: ServiceManager;
  readonly logger: Logger;
  /** How long to wait for calls in flight, in milliseconds. */
  readonly shutdownTimeoutMs: number;
}

/** Waits for a signal, or for the last connection; then for the calls in flight, up to a time limit or a second signal. */
export async function serveUntilStopped(
  server: Stoppable,
  { interrupt, manager, logger, shutdownTimeoutMs }: ServingOptions,
): Promise<void> {
  const interrupted = interrupt.signal.aborted ? undefined : once(interrupt.signal, "abort");
  await Promise.race([interrupted, server.exhausted]);
  const timeoutSeconds = shutdownTimeoutMs / 1000;
  logger.info(
    { timeoutSeconds },
    "shutting down: waiting for calls in flight, a second signal ends them",
  );
  const notified = manager.stopping("waiting for calls in flight");
  const cut = () => void server.terminate();
  if (interrupt.urgent.aborted) cut();
  else interrupt.urgent.addEventListener("abort", cut);
  const timeout = setTimeout(() => {
    logger.warn(
      { timeoutSeconds },
      "calls in flight cut: they took longer than the time for a shutdown",
    );
    cut();
  }, shutdownTimeoutMs);
  await server.shutdown();
  clearTimeout(timeout);
  await notified;
}

/**
 * Returns what is being opened, or `undefined` if a signal stops that. Opening then has some time to undo what it has done;
 * a second signal ends it at once.
 *
 * @param timeoutMs the time for that, in milliseconds
 */
export async function unlessStopped<T>(
  opening: Promise<T>,
  { signal, urgent }: StopSignals,
  timeoutMs: number,
): Promise<T | undefined> {
  const { promise: abandoned, reject } = Promise.withResolvers<never>();
  const abandon = () => reject(signal.reason);
  let timeout: NodeJS.Timeout | undefined;
  const onSignal = () => {
    timeout = setTimeout(abandon, timeoutMs);
  };
  if (signal.aborted) onSignal();
  signal.addEventListener("abort", onSignal);
  urgent.addEventListener("abort", abandon);
  try {
    return await Promise.race([opening, abandoned]);
  } catch (error) {
    if (signal.aborted && error === signal.reason) return undefined;
    throw error;
  } finally {
    clearTimeout(timeout);
    signal.removeEventListener("abort", onSignal);
    urgent.removeEventListener("abort", abandon);
  }
}
