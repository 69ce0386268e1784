import { Code, ConnectError } from "@connectrpc/connect";
import { CastoreError, type ErrorCode } from "../../model/errors.ts";

const CODES: readonly (readonly [ErrorCode, Code])[] = [
  ["invalid_argument", Code.InvalidArgument],
  ["not_found", Code.NotFound],
  ["data_loss", Code.DataLoss],
  ["aborted", Code.Aborted],
  ["unavailable", Code.Unavailable],
  ["resource_exhausted", Code.ResourceExhausted],
  ["permission_denied", Code.PermissionDenied],
  ["unimplemented", Code.Unimplemented],
  ["internal", Code.Internal],
  // Codes that other servers send.
  ["permission_denied", Code.Unauthenticated],
  ["unavailable", Code.DeadlineExceeded],
  ["unavailable", Code.Canceled], // by the server, for instance because it is stopped
  ["invalid_argument", Code.OutOfRange],
  ["invalid_argument", Code.FailedPrecondition],
];

/**
 * Converts an error to the status that a handler sends. The message of a CastoreError is sent to clients; any other
 * error is sent as `internal` without its message, and is the cause for the server's log.
 */
export function toConnectError(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  if (error instanceof CastoreError) {
    const code = CODES.find(([known]) => known === error.code)![1];
    return new ConnectError(error.message, code, undefined, undefined, error);
  }
  if (error instanceof Error && error.name === "AbortError") {
    return new ConnectError("The call was cancelled", Code.Canceled, undefined, undefined, error);
  }
  return new ConnectError("Internal error", Code.Internal, undefined, undefined, error);
}

/**
 * Converts the error of a failed call to the one that a client throws.
 *
 * @param action the operation and the server, for the message
 * @param signal cancels the call: if it is aborted, its reason is returned
 */
export function fromConnectError(error: unknown, action: string, signal?: AbortSignal): unknown {
  if (signal?.aborted) return signal.reason;
  if (error instanceof CastoreError) return error;
  const { code: wireCode, rawMessage, cause } = ConnectError.from(error);
  // Node.js leaves the message empty if it tried several addresses of a host.
  const message = cause instanceof AggregateError ? messagesOf(cause) : rawMessage;
  const known = CODES.find(([, known]) => known === wireCode)?.[0] ?? "internal";
  const code = isBrokenConnection(cause) ? "unavailable" : known;
  return new CastoreError(code, `${action}: ${message}`, { cause: error });
}

function messagesOf({ errors }: AggregateError): string {
  return errors.map((error) => (error instanceof Error ? error.message : String(error))).join(", ");
}

/** Tells whether an error is that of a connection that was refused or broken. */
function isBrokenConnection(cause: unknown): boolean {
  const { code, syscall } = (cause ?? {}) as NodeJS.ErrnoException;
  return code === "ECONNRESET" || code === "EPIPE" || syscall === "connect";
}
