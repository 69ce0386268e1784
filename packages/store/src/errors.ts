import { CastoreError } from "@tvix/castore";

/** The error of every operation in this package. Its codes are those of {@link CastoreError}. */
export class StoreError extends CastoreError {
  override readonly name = "StoreError";
}

/**
 * Puts in front of what is wrong with a value where that value stands: `${context}: ${message}`, of the same
 * code.
 */
export function inContext<T>(context: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof CastoreError)) throw error;
    throw new StoreError(error.code, `${context}: ${error.message}`, { cause: error });
  }
}
