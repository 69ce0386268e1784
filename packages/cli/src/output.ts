import { getSystemErrorMessage } from "node:util";
import type { AbortOptions } from "@tvix/castore";

/** Writing on stdout failed. */
export class OutputError extends Error {
  override readonly name = "OutputError";
  /** 141 if nobody reads stdout any more, as if SIGPIPE had ended the command; 1 otherwise. */
  readonly exitStatus: number;

  constructor(cause: NodeJS.ErrnoException) {
    const reason = cause.errno === undefined ? cause.message : getSystemErrorMessage(cause.errno);
    super(`Cannot write to stdout: ${reason}`, { cause });
    this.exitStatus = cause.code === "EPIPE" ? 141 : 1;
  }
}

/**
 * Writes on stdout. Resolves once the system has taken all of it.
 *
 * @param options.signal ends the wait for a reader; what the system has not taken then may still be written
 * @throws OutputError if the system does not take it
 */
export async function writeStdout(text: string, { signal }: AbortOptions = {}): Promise<void> {
  surviveErrors(process.stdout);
  signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onAbort = () => reject(signal!.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  process.stdout.write(text, (error) => (error ? reject(new OutputError(error)) : resolve()));
  try {
    await promise;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

/** Writes on stderr. What the system does not take is lost: there is no other place to tell it. */
export function writeStderr(text: string): void {
  surviveErrors(process.stderr);
  process.stderr.write(text);
}

/** Sets the exit status for the first {@link OutputError}, and tells it, unless nobody reads stdout any more. */
export function reportOutputError({ message, exitStatus }: OutputError): void {
  if (process.exitCode) return;
  process.exitCode = exitStatus;
  if (exitStatus === 1) writeStderr(`tvix-store: ${message}\n`);
}

/** Keeps errors of a stream from ending the process; who writes is told of them by the callback. */
function surviveErrors(stream: NodeJS.WriteStream): void {
  if (!stream.listeners("error").includes(ignore)) stream.on("error", ignore);
}

function ignore(): void {}
