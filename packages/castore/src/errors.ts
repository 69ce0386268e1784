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

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
