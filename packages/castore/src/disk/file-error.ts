import { quoteBytes } from "../bytes/byte-string.ts";
import { CastoreError, type ErrorCode } from "../model/errors.ts";

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
  const errno = (error as NodeJS.ErrnoException).code;
  if (!(error instanceof Error) || error instanceof CastoreError || errno === undefined) {
    return error;
  }
  const code = CODES[errno] ?? "internal";
  return new CastoreError(code, `Cannot ${action} ${showFilePath(path)}: ${reason(errno)}`, {
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

function reason(errno: string): string {
  if (errno === "ENOENT") return "it does not exist (any more)";
  if (errno === "ELOOP" || errno === "ENXIO" || errno === "ENOTDIR") return "it was replaced";
  return `the system answered ${errno}`;
}

/** Quotes a path of the file system for a message: as text where it is UTF-8, else its bytes. */
export function showFilePath(path: Buffer): string {
  const text = path.toString("utf8");
  return Buffer.from(text, "utf8").equals(path) ? JSON.stringify(text) : quoteBytes(path);
}
