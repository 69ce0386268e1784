import type { BlobService, DirectoryService } from "@tvix/castore";
import type { PathInfoService } from "@tvix/store";
import type { LRUCache } from "lru-cache";
import type { DebugInfoScan } from "./debug-info-scan.ts";
import type { TextAnswer } from "./exchange.ts";
import type { FileHashes } from "./file-hashes.ts";
import type { SideObjects } from "./side-objects.ts";
import type { Signer } from "./signer.ts";
import type { StoredNars } from "./stored-nars.ts";
import type { UploadSlots } from "./upload/upload-slots.ts";
import type { Uploads } from "./upload/uploads.ts";
import type { PullThrough } from "./upstream/pull-through.ts";

/** What the routes of a bridge share. */
export interface BridgeContext {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
  readonly pathInfoService: PathInfoService;
  readonly sideObjects: SideObjects;
  readonly nars: StoredNars;
  readonly fileHashes: FileHashes;
  readonly debugInfoScan: DebugInfoScan;
  /** Narinfos as they were served a moment ago, by hash part: what is put into the PathInfo service itself shows up soon. */
  readonly narInfos: LRUCache<string, TextAnswer>;
  /** How narinfos announce NARs, `zstd` where frames are stored. */
  readonly announce: "zstd" | "none";
  readonly signer: Signer;
  /** Serves what other caches have. `undefined`: there are none. */
  readonly pullThrough: PullThrough | undefined;
  readonly uploads: Uploads;
  readonly uploadSlots: UploadSlots;
  /** Longest file that a client may push, and longest NAR in it, in bytes. */
  readonly maxUploadBytes: number;
  /** The store dir of the store paths, such as `/nix/store`. */
  readonly storeDir: string;
  /** Priority among the substituters of a client: the lowest is asked first. */
  readonly priority: number;
  /** Whether clients may ask for many store paths at once, to find out which of them are here. */
  readonly wantMassQuery: boolean;
}
