import { CastoreError } from "@tvix/castore";
import { Interrupt, Interrupted } from "./interrupt.ts";
import { notice } from "./notices.ts";
import { OutputError, reportOutputError } from "./output.ts";

/**
 * Runs the body of a command. An error becomes one line on stderr and the exit status; only an unexpected error is shown
 * with its stack.
 */
export async function run(body: (interrupt: Interrupt) => Promise<void>): Promise<void> {
  using interrupt = new Interrupt();
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
  if (error instanceof CastoreError) return error.message + adviceFor(error);
  if (error instanceof Interrupted) return error.message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** Returns what to do about a daemon that cannot be reached; an empty string for other errors. */
function adviceFor(error: CastoreError): string {
  const isDaemon = /\bgrpc\+(?:https?|unix):/.test(error.message);
  return isDaemon && cameFromConnecting(error)
    ? '; start one with "tvix-store daemon", or pass the addresses of other stores, see "tvix-store import --help"'
    : "";
}

function cameFromConnecting(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error instanceof AggregateError) return error.errors.some(cameFromConnecting);
  return (error as NodeJS.ErrnoException).syscall === "connect" || cameFromConnecting(error.cause);
}
