import { StoreError } from "../errors.ts";
import { fingerprint, formatSignature } from "../nix/signature.ts";
import type { PathInfo } from "../pathinfo.ts";

/** Longest list of signatures that merging makes, in bytes of their text. */
export const MAX_SIGNATURE_BYTES: number = 1024 * 1024;

/**
 * Returns `given` with the signatures of the stored PathInfo that it is about to replace. Signatures cover the
 * fingerprint, so those of another fingerprint are dropped.
 *
 * @throws StoreError `resource_exhausted` if there are too many signatures
 */
export function mergeSignatures(stored: PathInfo | undefined, given: PathInfo): PathInfo {
  if (stored === undefined || stored.signatures.length === 0) return given;
  if (fingerprint(stored) !== fingerprint(given)) return given;
  const known = new Set(stored.signatures.map(formatSignature));
  const isNew = given.signatures.filter((signature) => !known.has(formatSignature(signature)));
  const signatures = [...stored.signatures, ...isNew];
  if (isNew.length > 0) expectRoomFor(signatures, given);
  return { ...given, signatures };
}

function expectRoomFor(signatures: PathInfo["signatures"], { storePath }: PathInfo): void {
  const bytes = signatures.reduce((sum, one) => sum + formatSignature(one).length, 0);
  if (bytes <= MAX_SIGNATURE_BYTES) return;
  const found = `found ${bytes} with those that are stored`;
  throw new StoreError(
    "resource_exhausted",
    `Cannot put the PathInfo of "${storePath}": expected at most ${MAX_SIGNATURE_BYTES} bytes of signatures, ${found}`,
  );
}
