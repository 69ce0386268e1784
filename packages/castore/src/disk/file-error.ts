import { quoteBytes } from "../bytes/byte-string.ts";
import { CastoreError, type ErrorCode } from "../model/errors.ts";
import { systemReason } from "../model/system-error.ts";

const CODES: Readonly<Record<string, ErrorCode>> = {
  // What was listed has vanished or was replaced.
  ENOENT: "aborted",
  ENOTDIR: "aborted",
  ELOOP: "aborted",
  ENXIO: "aborted",
  EACCES: "permission_denied",
  EPERM: "permission_denied",
  EMFILE: "resource_exhausted",
  ENFILE: "resource_exhausted",
  ENOMEM: "resource_exhausted",
  EIO: "data_loss",
};

/** Returns a CastoreError by cause for an error of the file system, any other error as it is. */
export function fileError(error: unknown, path: Buffer, action: string): unknown {
  const failure = error as NodeJS.ErrnoException;
  if (!(error instanceof Error) || error instanceof CastoreError || failure.code === undefined) {
    return error;
  }
  const code = CODES[failure.code] ?? "internal";
  return new CastoreError(code, `Cannot ${action} ${showFilePath(path)}: ${reason(failure)}`, {
    cause: error,
  });
}

/** Returns the error for a path to import that does not exist; `undefined` for other failures. */
export function noSuchFile(error: unknown, path: Buffer): CastoreError | undefined {
  if ((error as NodeJS.ErrnoException).code !== "ENOENT") return undefined;
  return new CastoreError(
    "not_found",
    `Cannot import ${showFilePath(path)}: there is no such file or folder`,
    { cause: error },
  );
}

function reason(failure: NodeJS.ErrnoException): string {
  const { code = "" } = failure;
  if (code === "ENOENT") return "it does not exist (any more)";
  if (["ELOOP", "ENXIO", "ENOTDIR"].includes(code)) return "it was replaced";
  return systemReason(failure);
}

/** Quotes a path of the file system for a message: as text where it is UTF-8, else its bytes. */
export function showFilePath(path: Buffer): string {
  const text = path.toString("utf8");
  return Buffer.from(text, "utf8").equals(path) ? JSON.stringify(text) : quoteBytes(path);
}
