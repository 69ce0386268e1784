/**
 * Computes store paths.
 * https://nix.dev/manual/nix/latest/protocols/store-path
 */
import { createHash } from "node:crypto";
import { quoteText, StoreError } from "../errors.ts";
import { type ContentAddress, formatContentAddress } from "./content-address.ts";
import { nixHash } from "./nix-hash.ts";
import { encodeNixbase32 } from "./nixbase32.ts";
import { STORE_DIR, StorePath, validateStorePathName } from "./store-path.ts";

/** Further inputs of a store path. */
export interface BuildPathOptions {
  /** Absolute paths of the store paths that the contents refer to, in any order,
   * each counted once. Default: none. */
  references?: readonly string[];
  /** Whether the contents refer to their own store path. Default: false. */
  selfReference?: boolean;
  /** Default: `/nix/store`. */
  storeDir?: string;
}

/**
 * Computes the store path of contents from their content address.
 *
 * @throws StoreError `invalid_argument` for an invalid name, or references that this kind of content
 *   address cannot have: only NARs by SHA-256 have references and refer to themselves, texts have
 *   references
 */
export function buildCaPath(
  name: string,
  ca: ContentAddress,
  { references = [], selfReference = false, storeDir = STORE_DIR }: BuildPathOptions = {},
): StorePath {
  const { kind, hash } = ca;
  const hex = Buffer.from(hash.digest).toString("hex");
  const isSource = kind === "nar" && hash.algorithm === "sha256";
  if (references.length > 0 && !isSource && kind !== "text") throw refusal(name, ca, "references");
  if (selfReference && !isSource) throw refusal(name, ca, "reference to itself");
  const sorted = [...new Set(references)]
    .toSorted()
    .map((reference) => `:${reference}`)
    .join("");
  if (kind === "text") {
    return buildPath(`text${sorted}`, `sha256:${hex}`, storeDir, name);
  }
  if (isSource) {
    const self = selfReference ? ":self" : "";
    return buildPath(`source${sorted}${self}`, `sha256:${hex}`, storeDir, name);
  }
  const recursive = kind === "nar" ? "r:" : "";
  const fixed = createHash("sha256").update(`fixed:out:${recursive}${hash.algorithm}:${hex}:`);
  return buildPath("output:out", `sha256:${fixed.digest("hex")}`, storeDir, name);
}

/**
 * Computes the store path of a text, such as a derivation, from its contents.
 *
 * @throws StoreError `invalid_argument` for an invalid name
 */
export function buildTextPath(
  name: string,
  contents: Uint8Array | string,
  options: Omit<BuildPathOptions, "selfReference"> = {},
): StorePath {
  const digest = createHash("sha256").update(contents).digest();
  return buildCaPath(name, { kind: "text", hash: { algorithm: "sha256", digest } }, options);
}

/**
 * Computes the store path of an output of an input-addressed derivation.
 *
 * @param derivationName the name of the derivation, without `.drv`
 * @param derivationHash SHA-256 of the derivation, 32 bytes: of its text with its outputs left empty and
 *   its inputs replaced by their own hashes (`hashDerivationModulo` of Nix)
 * @param outputName name of the output, such as `out`
 * @throws StoreError `invalid_argument` for a name or a hash that is invalid
 */
export function buildOutputPath(
  derivationName: string,
  derivationHash: Uint8Array,
  outputName: string,
  { storeDir = STORE_DIR }: Pick<BuildPathOptions, "storeDir"> = {},
): StorePath {
  validateStorePathName(outputName);
  const { digest } = nixHash("sha256", derivationHash);
  const name = outputName === "out" ? derivationName : `${derivationName}-${outputName}`;
  const hash = `sha256:${Buffer.from(digest).toString("hex")}`;
  return buildPath(`output:${outputName}`, hash, storeDir, name);
}

/**
 * Returns the placeholder for the path of an output within its own derivation: `builtins.placeholder` of Nix.
 */
export function placeholder(outputName: string): string {
  return `/${encodeNixbase32(createHash("sha256").update(`nix-output:${outputName}`).digest())}`;
}

function refusal(name: string, ca: ContentAddress, what: string): StoreError {
  return new StoreError(
    "invalid_argument",
    `Cannot build a store path for ${quoteText(name)}: "${formatContentAddress(ca)}" allows no ${what}`,
  );
}

/** Builds a store path. Its hash part is the SHA-256 of all inputs, folded to 20 bytes. */
function buildPath(type: string, hash: string, storeDir: string, name: string): StorePath {
  const fingerprint = `${type}:${hash}:${storeDir}:${name}`;
  const digest = createHash("sha256").update(fingerprint).digest();
  const hashPart = new Uint8Array(StorePath.HASH_PART_LENGTH);
  digest.forEach((byte, i) => {
    const at = i % hashPart.length;
    hashPart[at] = hashPart[at]! ^ byte;
  });
  return StorePath.from(hashPart, name);
}
