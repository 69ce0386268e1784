import type {
  AbortOptions,
  BlobService,
  DirectoryService,
  ImportProgress,
  Node,
} from "@tvix/castore";
import type { PathInfo } from "../pathinfo.ts";
import type { PathInfoService } from "../pathinfoservice/path-info-service.ts";

/** What is known of a store path before its contents are read. */
export type PathMetadata = Omit<PathInfo, "node">;

/** Where the contents of store paths go. */
export interface ContentServices {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
}

/** Where store paths are. */
export interface StorePathServices extends ContentServices {
  readonly pathInfoService: PathInfoService;
}

/** Options of {@link StorePathSource.copyContents}. */
export interface CopyContentsOptions extends AbortOptions {
  /** Receives running totals. Default: nobody. */
  onProgress?: ((progress: ImportProgress) => void) | undefined;
  /** Level of zstd, 1 to 22, for what is compressed to be sent to a server. Default: 3, as the link may be slow. */
  zstdLevel?: number | undefined;
}

/** Where store paths are copied from. */
export interface StorePathSource extends AsyncDisposable {
  /** Its name in messages. */
  readonly name: string;

  /**
   * Returns what is known of store paths, by their hash parts of 20 bytes, in order; `undefined` for one that is not there.
   * It need not have contents at hand.
   *
   * @throws StoreError `permission_denied` for one that has to be signed and is not; whatever reading the source throws
   */
  getMany(
    hashParts: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<readonly (PathMetadata | undefined)[]>;

  /**
   * Stores the contents of a store path in other services, as far as these lack them.
   *
   * @returns the root node, once everything is durable
   * @throws CastoreError `data_loss` if the contents are not those of the metadata; whatever source and services throw.
   *   None of the directories is visible then
   */
  copyContents(
    path: PathMetadata,
    to: ContentServices,
    options?: CopyContentsOptions,
  ): Promise<Node>;
}
