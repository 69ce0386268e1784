import { getSystemErrorMessage } from "node:util";
import { CastoreError, type ErrorCode } from "./errors.ts";

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: "resource_exhausted",
  EDQUOT: "resource_exhausted",
  EFBIG: "resource_exhausted",
  EMFILE: "resource_exhausted",
  ENFILE: "resource_exhausted",
  ENOMEM: "resource_exhausted",
  ENOTDIR: "invalid_argument",
  EEXIST: "invalid_argument",
  EACCES: "permission_denied",
  EPERM: "permission_denied",
  EROFS: "permission_denied",
};

/** Turns what the system threw into a CastoreError by cause; passes on everything else. */
export function systemError(error: unknown, action: string): unknown {
  if (error instanceof CastoreError || !isSystemError(error)) return error;
  const code = CODES[error.code] ?? "unavailable";
  return new CastoreError(code, `${action}: ${systemReason(error)}`, { cause: error });
}

/** Returns why the system refused something, in its own words, such as "permission denied". */
export function systemReason({ errno, code, message }: NodeJS.ErrnoException): string {
  return errno === undefined ? (code ?? message) : getSystemErrorMessage(errno);
}

function isSystemError(error: unknown): error is Error & { code: string } {
  return error instanceof Error && "code" in error && /^E[A-Z0-9]+$/.test(`${error.code}`);
}
