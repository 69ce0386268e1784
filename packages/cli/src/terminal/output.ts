import { getSystemErrorMessage } from "node:util";
import type { AbortOptions } from "@tvix/castore";

/** Thrown where writing on stdout fails. */
export class OutputError extends Error {
  override readonly name = "OutputError";
  /** 141, as after SIGPIPE, if the reader of stdout has gone; 1 otherwise. */
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
 * @param options.signal ends the wait for a reader; the data may be written all the same
 * @throws OutputError if the system does not take it
 */
export async function writeStdout(
  data: string | Uint8Array,
  { signal }: AbortOptions = {},
): Promise<void> {
  surviveErrors(process.stdout);
  signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onAbort = () => reject(signal!.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  process.stdout.write(data, (error) => (error ? reject(new OutputError(error)) : resolve()));
  try {
    await promise;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

/** Writes on stderr. Errors are ignored, as there is no other place to report them. */
export function writeStderr(text: string): void {
  surviveErrors(process.stderr);
  process.stderr.write(text);
}

/** Reports the first {@link OutputError} by the exit status and, unless the reader of stdout has gone, on stderr. */
export function reportOutputError({ message, exitStatus }: OutputError): void {
  if (process.exitCode) return;
  process.exitCode = exitStatus;
  if (exitStatus === 1) writeStderr(`tvix-store: ${message}\n`);
}

/** Ignores "error" events of a stream, which would end the process. Callbacks of writes still get the errors. */
function surviveErrors(stream: NodeJS.WriteStream): void {
  if (!stream.listeners("error").includes(ignore)) stream.on("error", ignore);
}

function ignore(): void {}
