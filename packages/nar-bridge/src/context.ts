import type { BlobService, DirectoryService } from "@tvix/castore";
import type { PathInfoService } from "@tvix/store";
import type { SideObjects } from "./side-objects.ts";
import type { StoredNars } from "./stored-nars.ts";

/** What the routes of a bridge share. */
export interface BridgeContext {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
  readonly pathInfoService: PathInfoService;
  readonly sideObjects: SideObjects;
  readonly nars: StoredNars;
  /** How narinfos announce NARs: `zstd` where frames are stored. */
  readonly announce: "zstd" | "none";
  /** The store dir of the store paths, such as `/nix/store`. */
  readonly storeDir: string;
  /** Priority among the substituters of a client: the lowest is asked first. */
  readonly priority: number;
  /** Whether clients may ask for many store paths at once, to find out which of them are here. */
  readonly wantMassQuery: boolean;
}
