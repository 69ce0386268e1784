import { getSystemErrorMessage } from "node:util";

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
 * @throws OutputError if it does not
 */
export function writeStdout(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    surviveErrors(process.stdout);
    process.stdout.write(text, (error) => (error ? reject(new OutputError(error)) : resolve()));
  });
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
