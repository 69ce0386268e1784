import { quoteText, StoreError } from "../errors.ts";
import { formatNixHash, type NixHash, parseNixHash } from "./nix-hash.ts";

/**
 * The content address of a store path:
 *
 * - `nar`: the hash of its NAR
 * - `flat`: the hash of the contents of a file
 * - `text`: the SHA-256 of the contents of a file that may refer to store paths, such as a derivation
 */
export interface ContentAddress {
  readonly kind: "nar" | "flat" | "text";
  readonly hash: NixHash;
}

/** Formats a content address: `fixed:r:ALGORITHM:DIGEST`, `fixed:ALGORITHM:DIGEST` or `text:sha256:DIGEST`. */
export function formatContentAddress({ kind, hash }: ContentAddress): string {
  const prefix = { nar: "fixed:r:", flat: "fixed:", text: "text:" }[kind];
  return prefix + formatNixHash(hash);
}

/**
 * Parses a content address in the form of {@link formatContentAddress}.
 *
 * @throws StoreError `invalid_argument` for anything else
 */
export function parseContentAddress(text: string): ContentAddress {
  const match = /^(fixed:r:|fixed:|text:)(.*)$/s.exec(text);
  if (match === null) {
    throw new StoreError(
      "invalid_argument",
      `Cannot parse content address ${quoteText(text)}: expected it to start with "fixed:" or "text:"`,
    );
  }
  const hash = parseNixHash(match[2]!);
  if (match[1] === "text:") return textContentAddress(hash);
  return { kind: match[1] === "fixed:r:" ? "nar" : "flat", hash };
}

/**
 * Makes the content address of a text.
 *
 * @throws StoreError `invalid_argument` for any algorithm but SHA-256
 */
export function textContentAddress(hash: NixHash): ContentAddress {
  if (hash.algorithm !== "sha256") {
    throw new StoreError(
      "invalid_argument",
      `Cannot use ${hash.algorithm} for the content address of a text: expected sha256`,
    );
  }
  return { kind: "text", hash };
}
