import { CastoreError, type ErrorCode } from "../model/errors.ts";

/** A CastoreError on its way from one thread to another: errors lose their fields on that way. */
export interface Failure {
  readonly code: ErrorCode;
  readonly message: string;
}

/** What is to be told of an error; anything but a CastoreError is thrown again. */
export function failureOf(error: unknown): Failure {
  if (!(error instanceof CastoreError)) throw error;
  return { code: error.code, message: error.message };
}

/** The error that a failure tells of. */
export function errorOf({ code, message }: Failure): CastoreError {
  return new CastoreError(code, message);
}
