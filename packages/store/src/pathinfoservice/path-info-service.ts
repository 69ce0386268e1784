import type { AbortOptions } from "@tvix/castore";
import type { PathInfo } from "../pathinfo.ts";

/**
 * Stores PathInfos, named by the 20-byte hash part of their store path.
 *
 * Every method rejects with `signal.reason` when cancelled, with a CastoreError or StoreError
 * `unavailable` when a backend cannot be reached, `resource_exhausted` when it is full.
 */
export interface PathInfoService extends AsyncDisposable {
  /**
   * The PathInfo of the store path with that hash part, 20 bytes; `undefined` if there is none.
   *
   * @throws StoreError `invalid_argument` for any other length
   */
  get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined>;

  /**
   * Stores a PathInfo, in place of an earlier one of the same hash part. Resolves once it is durable,
   * with what is stored, to which the service may have added signatures. The contents are stored
   * before.
   */
  put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo>;

  /**
   * Every PathInfo there is, ordered by hash part. Ones that are put meanwhile may be among them.
   */
  list(options?: AbortOptions): AsyncIterable<PathInfo>;
}
