/**
 * Why something was refused or failed, by cause:
 *
 * - `invalid_argument`: what was given breaks a rule, whatever is stored
 * - `not_found`: something that has to exist does not
 * - `data_loss`: stored or received bytes do not match their digest, size or format
 * - `aborted`: what was read changed meanwhile; trying again may succeed
 * - `unavailable`: a backend cannot be reached or is busy; trying again may succeed
 * - `resource_exhausted`: a limit was met, such as a full disk or the size of a message
 * - `permission_denied`: a backend or the system refuses access
 * - `unimplemented`: this implementation does not offer the operation
 * - `internal`: none of these
 */
export type ErrorCode =
  | "invalid_argument"
  | "not_found"
  | "data_loss"
  | "aborted"
  | "unavailable"
  | "resource_exhausted"
  | "permission_denied"
  | "unimplemented"
  | "internal";

/**
 * The error of every operation in this package. Match on {@link code}; the message is for people.
 */
export class CastoreError extends Error {
  override readonly name: string = "CastoreError";
  /** The cause, as a literal. */
  readonly code: ErrorCode;
  /**
   * The name of the store that it came out of, which its message tells too. `undefined` for one that no
   * composition has opened. Of stores that are made of others, it is the innermost.
   */
  store: string | undefined;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.store = undefined;
  }
}

/** Tells whether something that was thrown is a CastoreError of one code. */
export function hasCode(error: unknown, code: ErrorCode): error is CastoreError {
  return error instanceof CastoreError && error.code === code;
}

/** Notes in an error which store it came out of, unless that is known. */
export function nameStore(error: CastoreError, name: string): void {
  if (error.store !== undefined) return;
  error.store = name;
  // Clients of servers tell the address, which is the name of a store that has no other.
  const isTold = name.includes("://") && error.message.includes(name);
  if (!isTold) error.message = `${name}: ${error.message}`;
}
