/** Options of an operation that can be cancelled. */
export interface AbortOptions {
  /** Cancels the operation, which then rejects with `signal.reason`. Default: never. */
  signal?: AbortSignal;
}
