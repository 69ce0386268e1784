import type { Node } from "@tvix/castore";
import type { ContentAddress } from "./nix/content-address.ts";
import type { Signature } from "./nix/signature.ts";
import type { StorePath } from "./nix/store-path.ts";

/** Describes one store path. One that comes from `convert.ts` or a service is valid. */
export interface PathInfo {
  readonly storePath: StorePath;
  /** The root node of the contents. */
  readonly node: Node;
  /** The store paths that the contents refer to. May include the store path itself. */
  readonly references: readonly StorePath[];
  /** Length of the NAR of the contents in bytes, an unsigned 64-bit integer. */
  readonly narSize: bigint;
  /** SHA-256 digest of the NAR of the contents, 32 bytes. */
  readonly narSha256: Uint8Array;
  readonly signatures: readonly Signature[];
  /** The derivation that built the contents, its name without `.drv`; `undefined` if not known. */
  readonly deriver?: StorePath;
  /** What the store path was computed from; `undefined` if it is input-addressed. */
  readonly ca?: ContentAddress;
}
