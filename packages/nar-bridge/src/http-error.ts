import { CastoreError, type ErrorCode } from "@tvix/castore";

/** A refusal with a status of HTTP. Its message is the body of the answer. */
export class HttpError extends Error {
  override readonly name = "HttpError";
  /** Status of the answer: 4xx or 5xx. */
  readonly status: number;
  /** Headers of the answer, names in lower case. */
  readonly headers: Readonly<Record<string, string | number>>;

  constructor(
    status: number,
    message: string,
    { headers = {}, ...options }: ErrorOptions & Partial<Pick<HttpError, "headers">> = {},
  ) {
    // To tell where it was thrown takes longer than to answer with it, and it says nothing to whoever reads the answer.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super(message, options);
    Error.stackTraceLimit = stackTraceLimit;
    this.status = status;
    this.headers = headers;
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

/** Returns what answers an error. What is no error of ours is not told to clients. */
export function answerTo(error: unknown): Pick<HttpError, "status" | "message" | "headers"> {
  if (error instanceof HttpError) return error;
  const headers = {};
  if (error instanceof CastoreError) {
    return { status: STATUS[error.code], message: error.message, headers };
  }
  const message = "Cannot answer: an internal error, see the log of the server";
  return { status: 500, message, headers };
}
