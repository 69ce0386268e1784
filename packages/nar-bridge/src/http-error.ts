import { CastoreError, type ErrorCode } from "@tvix/castore";

/** A refusal with a status of HTTP. Its message is the body of the answer. */
export class HttpError extends Error {
  override readonly name = "HttpError";
  /** Status of the answer: 4xx or 5xx. */
  readonly status: number;

  constructor(status: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.status = status;
  }
}

/** The status that answers each cause of an error. */
const STATUS: Readonly<Record<ErrorCode, number>> = {
  invalid_argument: 400,
  permission_denied: 403,
  not_found: 404,
  unimplemented: 501,
  aborted: 503,
  unavailable: 503,
  resource_exhausted: 507,
  data_loss: 500,
  internal: 500,
};

/** Returns the status and the message that answer an error. What is no error of ours is not told to clients. */
export function answerTo(error: unknown): { status: number; message: string } {
  if (error instanceof HttpError) return error;
  if (error instanceof CastoreError) return { status: STATUS[error.code], message: error.message };
  return { status: 500, message: "Cannot answer: an internal error, see the log of the server" };
}
