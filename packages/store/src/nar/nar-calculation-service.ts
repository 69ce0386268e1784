import type { AbortOptions, Node } from "@tvix/castore";

/** Size and digest of a NAR. */
export interface CalculatedNar {
  /** Length in bytes. */
  readonly narSize: bigint;
  /** SHA-256 digest, 32 bytes. */
  readonly narSha256: Uint8Array;
}

/** Computes size and digest of NARs. */
export interface NarCalculationService {
  /**
   * Computes size and digest of the NAR of `root`.
   *
   * @throws CastoreError or StoreError `not_found` if the root directory or a blob is missing, `data_loss` if
   *   a directory below the root is missing, or something is damaged or not of the stated size
   */
  calculateNar(root: Node, options?: AbortOptions): Promise<CalculatedNar>;
}
