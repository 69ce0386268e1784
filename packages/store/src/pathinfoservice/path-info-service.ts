import type { AbortOptions } from "@tvix/castore";
import type { PathInfo } from "../pathinfo.ts";
import type { PathInfoPage } from "./path-info-page.ts";

/**
 * Stores PathInfos, named by the 20-byte hash part of their store path.
 *
 * Every method rejects with `signal.reason` when cancelled, with a CastoreError or StoreError
 * `unavailable` when a backend cannot be reached, `resource_exhausted` when it is full.
 */
export interface PathInfoService extends AsyncDisposable {
  /**
   * Returns the PathInfo of the store path with that hash part, 20 bytes; `undefined` if there is none.
   *
   * @throws StoreError `invalid_argument` for any other length
   */
  get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined>;

  /**
   * Returns the PathInfos of many hash parts, in their order: `undefined` for each that has none. Costs far less than
   * as many calls of {@link get}. Rejects if any of the lookups does.
   *
   * @throws StoreError `invalid_argument` for a hash part that is not 20 bytes long
   */
  getMany(
    hashParts: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly (PathInfo | undefined)[]>;

  /**
   * Stores a PathInfo in place of an earlier one of the same hash part, and resolves with what is stored once it is
   * durable. The contents have to be stored before.
   *
   * Signatures are merged, also where several processes put at the same time: if the stored PathInfo has the same
   * fingerprint, its signatures are kept, in front of those that are new. The service may add signatures of its own.
   *
   * @throws StoreError `resource_exhausted` if the merged signatures are longer than `MAX_SIGNATURE_BYTES`
   */
  put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo>;

  /**
   * Lists PathInfos, ordered by hash part, compared bytewise. PathInfos that are put meanwhile may be among them.
   *
   * Nothing is opened before the first one is asked for; leaving the iteration early releases everything.
   *
   * @throws StoreError `invalid_argument`, from iterating, for an `after` that is not 20 bytes long
   */
  list(options?: ListPathInfosOptions): AsyncIterable<PathInfo>;

  /**
   * Lists what {@link list} does, many at a time, for whoever sends or stores them encoded: they are not decoded as long
   * as nobody asks for it. No page is empty, or longer than some thousand PathInfos.
   */
  listPages(options?: ListPathInfosOptions): AsyncIterable<PathInfoPage>;
}

/** Options of {@link PathInfoService.list}. */
export interface ListPathInfosOptions extends AbortOptions {
  /**
   * The cursor: lists only PathInfos whose hash part sorts after this one, 20 bytes. There need not be a PathInfo of
   * this hash part. Default: all.
   */
  after?: Uint8Array | undefined;
}
