import { CastoreError, systemReason } from "@tvix/castore";
import { limitHeapGrowth } from "./heap-growth.ts";
import { DAEMON_ADDRESS } from "./options/addresses.ts";
import { Interrupt, Interrupted } from "./terminal/interrupt.ts";
import { notice } from "./terminal/notices.ts";
import { OutputError, reportOutputError } from "./terminal/output.ts";

/**
 * Runs the body of a command. An error becomes one line on stderr and the exit status; only an unexpected error is shown
 * with its stack.
 */
export async function run(body: (interrupt: Interrupt) => Promise<void>): Promise<void> {
  using interrupt = new Interrupt();
  limitHeapGrowth();
  try {
    await body(interrupt);
  } catch (error) {
    if (error instanceof OutputError) return reportOutputError(error);
    reportFailure(error);
    if (error instanceof Interrupted) process.exit(error.exitStatus); // unread output does not keep it alive
  }
}

/** Writes an error on stderr, one line, and has the process exit with 1 at its end. */
export function reportFailure(error: unknown): void {
  process.exitCode = 1;
  notice("error", describeError(error), error instanceof CastoreError ? { code: error.code } : {});
}

/** Returns what is told of an error: its message and advice, and of an unexpected one the stack. */
export function describeError(error: unknown): string {
  if (error instanceof CastoreError) return unreachable(error) ?? error.message;
  if (error instanceof Interrupted) return error.message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** Returns what is told of a daemon that cannot be reached; `undefined` for other errors. */
function unreachable(error: CastoreError): string | undefined {
  const [, address] = /\b(grpc\+(?:https?|unix):\/\/[^\s:]*(?::\d+)?)/.exec(error.message) ?? [];
  const failure = address === undefined ? undefined : failureToConnect(error);
  if (failure === undefined) return undefined;
  const cannot = `Cannot reach the store at ${address}`;
  if (failure.syscall === "getaddrinfo")
    return `${cannot} (its host has no address, ${failure.code})`;
  const advice =
    address === DAEMON_ADDRESS
      ? 'start one with "tvix-store daemon", or name a store with --blob-service-addr'
      : 'start one there with "tvix-store daemon", or name another store';
  return `${cannot} (${systemReason(failure)}); ${advice}`;
}

/** Returns the error of the system because of which there is no connection; `undefined` if that is not why. */
function failureToConnect(error: unknown): NodeJS.ErrnoException | undefined {
  if (!(error instanceof Error)) return undefined;
  if (error instanceof AggregateError) return error.errors.map(failureToConnect).find(Boolean);
  const { syscall, cause } = error as NodeJS.ErrnoException;
  const isOfConnecting = syscall === "connect" || syscall === "getaddrinfo";
  return isOfConnecting ? error : failureToConnect(cause);
}
