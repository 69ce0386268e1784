import type { PathMetadata } from "../copy/store-path-source.ts";
import { StoreError } from "../errors.ts";
import { parseContentAddress } from "../nix/content-address.ts";
import { parseAnyNixHash } from "../nix/nix-hash.ts";
import { parseSignature } from "../nix/signature.ts";
import { StorePath } from "../nix/store-path.ts";

/** What Nix registers of a store path, as text. Paths are absolute. */
export interface RegisteredPath {
  readonly path: string;
  readonly narHash: string;
  readonly narSize: bigint;
  readonly references: readonly string[];
  readonly signatures: readonly string[];
  /** The derivation; `null`, `undefined` or empty where Nix knows none. */
  readonly deriver?: string | null | undefined;
  /** The content address; `null`, `undefined` or empty where there is none. */
  readonly ca?: string | null | undefined;
}

/** @throws StoreError `invalid_argument` for anything that is not what it should be, and for a hash by another algorithm */
export function parsePathMetadata(path: RegisteredPath): PathMetadata {
  const { algorithm, digest } = parseAnyNixHash(path.narHash);
  if (algorithm !== "sha256") {
    throw new StoreError("invalid_argument", `expected a sha256 hash, found "${path.narHash}"`);
  }
  return {
    storePath: StorePath.parseAbsolute(path.path),
    references: path.references.map((reference) => StorePath.parseAbsolute(reference)),
    narSha256: digest,
    narSize: path.narSize,
    signatures: path.signatures.map(parseSignature),
    ...(path.deriver && { deriver: parseDeriver(path.deriver) }),
    ...(path.ca && { ca: parseContentAddress(path.ca) }),
  };
}

/** Parses the path of a derivation. Returns its store path without `.drv`, as a PathInfo has it. */
function parseDeriver(path: string): StorePath {
  const { hashPart, name } = StorePath.parseAbsolute(path);
  return StorePath.from(hashPart, name.replace(/\.drv$/, ""));
}
