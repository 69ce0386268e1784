import { CastoreError } from "../../model/errors.ts";

/** Refuses a request that exceeds a limit with CastoreError `invalid_argument`. */
export function expectAtMost(limit: number, found: number, what: string): void {
  if (found <= limit) return;
  throw new CastoreError(
    "invalid_argument",
    `Cannot take a batch: expected at most ${limit} ${what}, found ${found}`,
  );
}
