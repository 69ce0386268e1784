import { CastoreError } from "@tvix/castore";

/** The error of every operation in this package. Its codes are those of {@link CastoreError}. */
export class StoreError extends CastoreError {
  override readonly name = "StoreError";
}
