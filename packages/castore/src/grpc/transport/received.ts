import { CastoreError } from "../../model/errors.ts";

/**
 * Takes what a server sent. What it got wrong is not the fault of whoever asked.
 *
 * @param action what was attempted and where, for the message
 * @throws CastoreError `data_loss` for whatever CastoreError `take` throws
 */
export function received<T>(action: string, take: () => T): T {
  try {
    return take();
  } catch (cause) {
    if (!(cause instanceof CastoreError)) throw cause;
    throw new CastoreError("data_loss", `${action}: ${cause.message}`, { cause });
  }
}
