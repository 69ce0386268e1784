import { StoreError } from "../errors.ts";
import { decodeNixbase32, encodeNixbase32 } from "./nixbase32.ts";

/** The hash algorithms of Nix. */
export type HashAlgorithm = "md5" | "sha1" | "sha256" | "sha512";

/** Length of a digest in bytes, by algorithm. */
const DIGEST_LENGTH: Readonly<Record<HashAlgorithm, number>> = {
  md5: 16,
  sha1: 20,
  sha256: 32,
  sha512: 64,
};

/** A digest and the algorithm that made it. */
export interface NixHash {
  readonly algorithm: HashAlgorithm;
  /** As many bytes as its algorithm makes. */
  readonly digest: Uint8Array;
}

/**
 * Takes a digest of an algorithm.
 *
 * @throws StoreError `invalid_argument` if it is not as long as the algorithm makes it
 */
export function nixHash(algorithm: HashAlgorithm, digest: Uint8Array): NixHash {
  const expected = DIGEST_LENGTH[algorithm];
  if (digest.length !== expected) {
    throw new StoreError(
      "invalid_argument",
      `Cannot use ${digest.length} bytes as a ${algorithm} digest: expected ${expected}`,
    );
  }
  return { algorithm, digest };
}

/** `algorithm:` and the digest in nixbase32. */
export function formatNixHash({ algorithm, digest }: NixHash): string {
  return `${algorithm}:${encodeNixbase32(digest)}`;
}

/**
 * Parses what {@link formatNixHash} gives.
 *
 * @throws StoreError `invalid_argument` for an unknown algorithm or a digest that is not valid
 */
export function parseNixHash(text: string): NixHash {
  const colon = text.indexOf(":");
  const algorithm = text.slice(0, colon);
  if (colon < 0 || !Object.hasOwn(DIGEST_LENGTH, algorithm)) {
    throw new StoreError(
      "invalid_argument",
      `Cannot parse hash "${text}": expected one of ${Object.keys(DIGEST_LENGTH).join(", ")} and a colon`,
    );
  }
  return nixHash(algorithm as HashAlgorithm, decodeNixbase32(text.slice(colon + 1)));
}
