/**
 * Makes and verifies signatures of store paths: ed25519 over a fingerprint. Keys and signatures have the text form of
 * Nix: a name, a colon, and bytes in base64.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from "node:crypto";
import { copyBytes, equalBytes } from "@tvix/castore";
import { quoteText, StoreError } from "../errors.ts";
import { decodeBase64, encodeBase64 } from "./base64.ts";
import { encodeNixbase32 } from "./nixbase32.ts";
import { STORE_DIR, type StorePath } from "./store-path.ts";

const SIGNATURE_LENGTH = 64;
const PUBLIC_LENGTH = 32;
/** A secret key is a seed followed by its public key. */
const SEED_LENGTH = 32;
const SECRET_LENGTH = SEED_LENGTH + PUBLIC_LENGTH;

/** The prefix of a key of 32 bytes in its DER encoding (RFC 8410). */
const PUBLIC_DER = Buffer.from("302a300506032b6570032100", "hex");
const PRIVATE_DER = Buffer.from("302e020100300506032b657004220420", "hex");

/** An ed25519 signature over the fingerprint of a store path. */
export interface Signature {
  /** Name of the key: not empty, without colon, space or control character. */
  readonly name: string;
  /** The signature, 64 bytes. */
  readonly data: Uint8Array;
}

/** The signed fields of a PathInfo or narinfo. */
export interface Signable {
  readonly storePath: StorePath;
  /** Length of the NAR in bytes. */
  readonly narSize: bigint;
  /** SHA-256 digest of the NAR, 32 bytes. */
  readonly narSha256: Uint8Array;
  /** In any order. Duplicates count once. */
  readonly references: readonly StorePath[];
}

/**
 * Returns the text that is signed: `1;`, the store path, hash and size of its NAR, and its references,
 * sorted and separated by commas. All paths are absolute.
 */
export function fingerprint(
  { storePath, narSize, narSha256, references }: Signable,
  storeDir: string = STORE_DIR,
): string {
  const sorted = [...new Set(references.map((path) => path.toAbsolutePath(storeDir)))].toSorted();
  const hash = `sha256:${encodeNixbase32(narSha256)}`;
  return `1;${storePath.toAbsolutePath(storeDir)};${hash};${narSize};${sorted.join(",")}`;
}

/** Formats a signature as Nix does: `name:`, and the signature in base64. */
export function formatSignature({ name, data }: Signature): string {
  return `${name}:${encodeBase64(data)}`;
}

/**
 * Parses a signature in the form of {@link formatSignature}.
 *
 * @throws StoreError `invalid_argument` for anything else
 */
export function parseSignature(text: string): Signature {
  const named = splitNamed(text, SIGNATURE_LENGTH);
  if (named === undefined) {
    throw new StoreError(
      "invalid_argument",
      `Cannot parse signature ${quoteText(text)}: ${expectedForm(SIGNATURE_LENGTH)}`,
    );
  }
  return { name: named.name, data: named.bytes };
}

/**
 * Validates a signature.
 *
 * @throws StoreError `invalid_argument` for a name that no key can have, or data of another length
 */
export function signature(name: string, data: Uint8Array): Signature {
  const rule = brokenRule(name, data, SIGNATURE_LENGTH);
  if (rule !== undefined) {
    throw new StoreError(
      "invalid_argument",
      `Cannot use signature of key ${quoteText(name)}: ${rule}`,
    );
  }
  return { name, data };
}

/** Splits keys that are separated by spaces, as in `trusted-public-keys` of Nix. */
export function splitKeys(text: string): string[] {
  return text.split(/\s+/).filter((key) => key !== "");
}

/** A public key, which verifies signatures. */
export class VerifyingKey {
  /** Not empty, without colon, space or control character. */
  readonly name: string;
  readonly #bytes: Uint8Array;
  readonly #key: KeyObject;

  private constructor(name: string, bytes: Uint8Array) {
    this.name = name;
    this.#bytes = bytes;
    this.#key = createPublicKey({
      key: Buffer.concat([PUBLIC_DER, bytes]),
      format: "der",
      type: "spki",
    });
  }

  /**
   * Parses the form of Nix, such as `cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=`: a
   * name, a colon, and 32 bytes in base64.
   *
   * @throws StoreError `invalid_argument` for anything else. The message does not show the text, which
   *   may be a secret key in the wrong place
   */
  static parse(text: string): VerifyingKey {
    const named = splitNamed(text, PUBLIC_LENGTH);
    if (named === undefined) throw keyRefusal("public", expectedForm(PUBLIC_LENGTH));
    return new VerifyingKey(named.name, named.bytes);
  }

  /**
   * Makes a key of its parts.
   *
   * @param bytes the public key, 32 bytes
   * @throws StoreError `invalid_argument` for an invalid name or length
   */
  static from(name: string, bytes: Uint8Array): VerifyingKey {
    const rule = brokenRule(name, bytes, PUBLIC_LENGTH);
    if (rule !== undefined) throw keyRefusal("public", rule);
    return new VerifyingKey(name, copyBytes(bytes));
  }

  /** Returns whether a signature has the name of this key and is valid for the fingerprint. */
  verify(fingerprint: string, { name, data }: Signature): boolean {
    if (name !== this.name || data.length !== SIGNATURE_LENGTH) return false;
    return verify(null, Buffer.from(fingerprint), this.#key, data);
  }

  /** The public key, 32 bytes. */
  toBytes(): Uint8Array {
    return copyBytes(this.#bytes);
  }

  /** Formats the key, as {@link VerifyingKey.parse} reads it. */
  toString(): string {
    return `${this.name}:${encodeBase64(this.#bytes)}`;
  }
}

/** A secret key. Only {@link SigningKey.toSecretText} reveals the secret. */
export class SigningKey {
  /** Not empty, without colon, space or control character. */
  readonly name: string;
  /** The public key. */
  readonly verifyingKey: VerifyingKey;
  readonly #key: KeyObject;

  private constructor(name: string, key: KeyObject) {
    this.name = name;
    this.#key = key;
    this.verifyingKey = VerifyingKey.from(name, publicBytes(key));
  }

  /**
   * Parses the form of Nix, as `nix-store --generate-binary-cache-key` writes it: a name, a colon, and 64
   * bytes in base64, the seed and the public key.
   *
   * @throws StoreError `invalid_argument` for anything else, and if the public key does not follow
   *   from the seed. The message does not show the text
   */
  static parse(text: string): SigningKey {
    const named = splitNamed(text, SECRET_LENGTH);
    if (named === undefined) throw keyRefusal("secret", expectedForm(SECRET_LENGTH));
    const { name, bytes } = named;
    const key = createPrivateKey({
      key: Buffer.concat([PRIVATE_DER, bytes.subarray(0, SEED_LENGTH)]),
      format: "der",
      type: "pkcs8",
    });
    if (!equalBytes(publicBytes(key), bytes.subarray(SEED_LENGTH))) {
      throw keyRefusal("secret", "expected its second half to be the public key of its first");
    }
    return new SigningKey(name, key);
  }

  /**
   * Generates a key.
   *
   * @throws StoreError `invalid_argument` for an invalid name
   */
  static generate(name: string): SigningKey {
    return new SigningKey(name, generateKeyPairSync("ed25519").privateKey);
  }

  /** Signs a fingerprint. The same fingerprint always gives the same signature. */
  sign(fingerprint: string): Signature {
    return { name: this.name, data: sign(null, Buffer.from(fingerprint), this.#key) };
  }

  /** Formats the secret key, as {@link SigningKey.parse} reads it. */
  toSecretText(): string {
    const seed = this.#key.export({ format: "der", type: "pkcs8" }).subarray(-SEED_LENGTH);
    return `${this.name}:${encodeBase64(Buffer.concat([seed, this.verifyingKey.toBytes()]))}`;
  }
}

/** Returns the public key of a secret key. */
function publicBytes(key: KeyObject): Uint8Array {
  const der = createPublicKey(key).export({ format: "der", type: "spki" });
  return der.subarray(-PUBLIC_LENGTH);
}

/** Splits the common text form; returns `undefined` for anything else. */
function splitNamed(text: string, length: number): { name: string; bytes: Uint8Array } | undefined {
  const colon = text.indexOf(":");
  const name = text.slice(0, Math.max(colon, 0));
  const bytes = decodeBase64(text.slice(colon + 1));
  if (bytes === undefined || brokenRule(name, bytes, length) !== undefined) return undefined;
  return { name, bytes };
}

/** Returns the rule that a name, or bytes of a fixed length, break; `undefined` if none. */
function brokenRule(name: string, bytes: Uint8Array, length: number): string | undefined {
  if (bytes.length !== length) return `expected ${length} bytes, found ${bytes.length}`;
  if (name === "") return "expected a name, found none";
  if (/[:\s\p{Cc}]/u.test(name)) {
    return "expected a name without colons, spaces and control characters";
  }
  return undefined;
}

function expectedForm(length: number): string {
  return `expected a name, a colon, and ${length} bytes in base64`;
}

/** Makes an error that does not show the key. */
function keyRefusal(kind: "public" | "secret", reason: string): StoreError {
  return new StoreError("invalid_argument", `Cannot use ${kind} key: ${reason}`);
}
