import { CastoreError } from "../model/errors.ts";

/** The error for using an upload that was closed or disposed of. */
export function uploadEnded(key: string): CastoreError {
  return new CastoreError("invalid_argument", `Cannot store "${key}": the upload has ended`);
}
