import { quoteText, StoreError } from "../errors.ts";
import { decodeBase64, encodeBase64 } from "./base64.ts";
import { decodeNixbase32, encodeNixbase32 } from "./nixbase32.ts";

/** The hash algorithms of Nix. */
export type HashAlgorithm = "md5" | "sha1" | "sha256" | "sha512";

/** Length of a digest in bytes, by algorithm. */
export const DIGEST_LENGTH: Readonly<Record<HashAlgorithm, number>> = {
  md5: 16,
  sha1: 20,
  sha256: 32,
  sha512: 64,
};

/** A digest and the algorithm that made it. */
export interface NixHash {
  readonly algorithm: HashAlgorithm;
  /** Its length is that of the algorithm. */
  readonly digest: Uint8Array;
}

/**
 * Makes a hash from a digest.
 *
 * @throws StoreError `invalid_argument` if the digest does not have the length of the algorithm
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

/**
 * The text form of a hash:
 *
 * - `nixbase32`: the algorithm, a colon, and the digest in nixbase32, as in narinfos and content addresses
 * - `hex`, `base64`: likewise, in lower-case hexadecimal or padded base64
 * - `sri`: the algorithm, a dash, and the digest in padded base64, as in the hashes of flakes
 */
export type HashForm = "nixbase32" | "hex" | "base64" | "sri";

/** Formats a hash. */
export function formatNixHash(
  { algorithm, digest }: NixHash,
  form: HashForm = "nixbase32",
): string {
  return `${algorithm}${form === "sri" ? "-" : ":"}${ENCODINGS[form].encode(digest)}`;
}

/**
 * Parses a hash in exactly one form.
 *
 * @throws StoreError `invalid_argument` for an unknown algorithm or a digest that is not valid
 */
export function parseNixHash(text: string, form: HashForm = "nixbase32"): NixHash {
  const separator = form === "sri" ? "-" : ":";
  const end = text.indexOf(separator);
  const algorithm = text.slice(0, Math.max(end, 0));
  if (!isHashAlgorithm(algorithm)) {
    throw invalid(text, `expected one of ${ALGORITHMS} and a ${SEPARATOR_NAMES[separator]}`);
  }
  const digest = ENCODINGS[form].decode(text.slice(end + 1));
  if (digest === undefined) throw invalid(text, `expected the digest in ${ENCODINGS[form].name}`);
  return nixHash(algorithm, digest);
}

/**
 * Parses a hash in any form, which follows from the separator and the length.
 *
 * @param algorithm the algorithm of the hash. The text may then be a digest alone, in any form but
 *   `sri`, as in `outputHash` of a derivation. Default: the text names the algorithm
 * @throws StoreError `invalid_argument` for anything else, and for a hash by another algorithm
 */
export function parseAnyNixHash(text: string, algorithm?: HashAlgorithm): NixHash {
  const named = algorithm === undefined || /^[a-z0-9]+[:-]/.test(text);
  const full = named ? text : `${algorithm}:${text}`;
  const hash = parseNixHash(full, formOf(full));
  if (algorithm !== undefined && hash.algorithm !== algorithm) {
    throw invalid(text, `expected one by ${algorithm}, found ${hash.algorithm}`);
  }
  return hash;
}

const ENCODINGS: Readonly<
  Record<
    HashForm,
    {
      readonly name: string;
      encode(bytes: Uint8Array): string;
      /** Decodes a digest; returns `undefined`, or throws, for text that `encode` never returns. */
      decode(text: string): Uint8Array | undefined;
    }
  >
> = {
  nixbase32: { name: "nixbase32", encode: encodeNixbase32, decode: decodeNixbase32 },
  hex: { name: "lower-case hexadecimal", encode: encodeHex, decode: decodeHex },
  base64: { name: "padded base64", encode: encodeBase64, decode: decodeBase64 },
  sri: { name: "padded base64", encode: encodeBase64, decode: decodeBase64 },
};

const ALGORITHMS = Object.keys(DIGEST_LENGTH).join(", ");
const SEPARATOR_NAMES = { ":": "colon", "-": "dash" } as const;

function isHashAlgorithm(text: string): text is HashAlgorithm {
  return Object.hasOwn(DIGEST_LENGTH, text);
}

/** Returns the form of a hash by its length; `nixbase32` if none fits. */
function formOf(text: string): HashForm {
  const colon = text.indexOf(":");
  if (colon < 0) return text.includes("-") ? "sri" : "nixbase32";
  const algorithm = text.slice(0, colon);
  if (!isHashAlgorithm(algorithm)) return "nixbase32";
  const bytes = DIGEST_LENGTH[algorithm];
  const length = text.length - colon - 1;
  if (length === bytes * 2) return "hex";
  return length === Math.ceil(bytes / 3) * 4 ? "base64" : "nixbase32";
}

function encodeHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");
}

function decodeHex(text: string): Uint8Array | undefined {
  const bytes = Buffer.from(text, "hex");
  return encodeHex(bytes) === text ? bytes : undefined;
}

function invalid(text: string, reason: string): StoreError {
  return new StoreError("invalid_argument", `Cannot parse hash ${quoteText(text)}: ${reason}`);
}
