import { Code, ConnectError } from "@connectrpc/connect";
import { CastoreError, type ErrorCode } from "../../model/errors.ts";

/** Options of {@link RpcError}. */
interface RpcErrorOptions extends ErrorOptions {
  /** Whether a server of gRPC answered with it. Default: false */
  readonly isAnswer?: boolean;
}

/**
 * A call that failed, with its code in gRPC. Connect, and `instanceof ConnectError`, take it for an error of Connect by its
 * properties. An error of Connect itself has `Headers` from the start, and the first `Headers` make Node.js load its HTTP
 * client: that would take 20 ms and 17 MB in each command that asks for something that is not there.
 */
export class RpcError extends Error {
  override readonly name = "ConnectError";
  override readonly cause: unknown;
  readonly code: Code;
  /** Whether a server of gRPC answered with it, so that it was reached. */
  readonly isAnswer: boolean;
  readonly details: readonly never[] = [];
  #metadata: Headers | undefined;

  constructor(code: Code, message: string, { cause, isAnswer = false }: RpcErrorOptions = {}) {
    super(message);
    this.code = code;
    this.cause = cause;
    this.isAnswer = isAnswer;
  }

  /**
   * Returns an error as it is, or with a code where it has none: `canceled` for one of an `AbortSignal`.
   *
   * @param code of others. Default: unknown
   */
  static from(error: unknown, code: Code = Code.Unknown): RpcError {
    if (error instanceof RpcError) return error;
    if (error instanceof ConnectError) {
      return new RpcError(error.code, error.rawMessage, { cause: error.cause });
    }
    if (!(error instanceof Error)) return new RpcError(code, String(error), { cause: error });
    const isAbort = error.name === "AbortError" || error.name === "TimeoutError";
    return new RpcError(isAbort ? Code.Canceled : code, error.message, { cause: error });
  }

  /** The message, by its name in Connect. */
  get rawMessage(): string {
    return this.message;
  }

  /** Headers of the answer. */
  get metadata(): Headers {
    this.#metadata ??= new Headers();
    return this.#metadata;
  }
}

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
export function toRpcError(error: unknown): RpcError {
  if (error instanceof ConnectError) return RpcError.from(error);
  if (error instanceof CastoreError) {
    const code = CODES.find(([known]) => known === error.code)![1];
    return new RpcError(code, error.message, { cause: error });
  }
  if (error instanceof Error && error.name === "AbortError") {
    return new RpcError(Code.Canceled, "The call was cancelled", { cause: error });
  }
  return new RpcError(Code.Internal, "Internal error", { cause: error });
}

/**
 * Converts the error of a failed call to the one that a client throws.
 *
 * @param action the operation and the server, for the message
 * @param signal cancels the call: if it is aborted, its reason is returned
 */
export function fromRpcError(error: unknown, action: string, signal?: AbortSignal): unknown {
  if (signal?.aborted) return signal.reason;
  if (error instanceof CastoreError) return error;
  const { code: wireCode, rawMessage, cause } = RpcError.from(error);
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
