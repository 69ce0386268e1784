import type { BlobService, DirectoryService, ObjectStore } from "@tvix/castore";
import { type PathInfoService, STORE_DIR } from "@tvix/store";
import type { BridgeContext } from "./context.ts";
import { type Answered, Exchange, type HttpRequest, type HttpResponse } from "./exchange.ts";
import { Router } from "./router.ts";
import { cacheInfoRoutes } from "./routes/cache-info.ts";
import { narRoutes } from "./routes/nar.ts";
import { narInfoRoutes } from "./routes/narinfo.ts";
import { SideObjects } from "./side-objects.ts";
import { StoredNars } from "./stored-nars.ts";

/** Options of {@link createNarBridge}. Services and object store are not disposed of with it. */
export interface NarBridgeOptions {
  blobService: BlobService;
  directoryService: DirectoryService;
  pathInfoService: PathInfoService;
  /** Keeps what belongs to the cache and is none of the above, such as logs. Several bridges may share it. */
  objects: ObjectStore;
  /** The store dir of the store paths. Default: `/nix/store`. */
  storeDir?: string;
  /** Priority among the substituters of a client: the lowest is asked first. Default: 39, before cache.nixos.org. */
  priority?: number;
  /** Whether clients may ask for many store paths at once, to find out which of them are here. Default: true. */
  wantMassQuery?: boolean;
  /**
   * How narinfos announce NARs: `zstd`, as files of the frames that are stored, or `none`, uncompressed. Default: `zstd`;
   * `none` is what is announced where the blob service stores no frames.
   */
  announce?: "zstd" | "none";
  /** Called once for each request. Default: nothing is logged. */
  onAnswered?: (answered: Answered, request: HttpRequest) => void;
}

/** A binary cache of Nix over HTTP. */
export interface NarBridge {
  /** Answers a request. Never throws. */
  handle(request: HttpRequest, response: HttpResponse): void;
}

/** Makes a binary cache of Nix over three services. */
export function createNarBridge(options: NarBridgeOptions): NarBridge {
  const { blobService, directoryService, pathInfoService, objects, onAnswered } = options;
  const nars = new StoredNars({ blobService, directoryService });
  const context: BridgeContext = {
    nars,
    announce: nars.hasFrames ? (options.announce ?? "zstd") : "none",
    ...{ blobService, directoryService, pathInfoService },
    sideObjects: new SideObjects(objects),
    storeDir: options.storeDir ?? STORE_DIR,
    priority: options.priority ?? 39,
    wantMassQuery: options.wantMassQuery ?? true,
  };
  const router = new Router();
  for (const addRoutes of [cacheInfoRoutes, narInfoRoutes, narRoutes]) addRoutes(router, context);
  return {
    handle(request, response) {
      const exchange = new Exchange(request, response, (answered) =>
        onAnswered?.(answered, request),
      );
      router.answer(exchange).catch((error) => exchange.fail(error));
    },
  };
}
