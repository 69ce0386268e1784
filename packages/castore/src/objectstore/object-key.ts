import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";

const KEY = /^[\w.-]+(\/[\w.-]+)*$/;
const DOTS = /(^|\/)\.\.?(\/|$)/;

/** @throws CastoreError `invalid_argument` for a key that no object can have */
export function assertObjectKey(key: string): void {
  if (KEY.test(key) && !DOTS.test(key)) return;
  throw new CastoreError(
    "invalid_argument",
    `Cannot use object key ${JSON.stringify(key)}: expected names of letters, digits and "-_." ` +
      `with "/" between them, none of them "." or ".."`,
  );
}

/** Returns the key of what is stored under a digest: `<folder>/b3/<4 hex>/<hex>`, so that no folder gets too large. */
export function objectKey(folder: string, { hex }: B3Digest): string {
  return `${folder}/b3/${hex.slice(0, 4)}/${hex}`;
}
