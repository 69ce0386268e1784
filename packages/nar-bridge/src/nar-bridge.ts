import type { BlobService, DirectoryService, ObjectStore } from "@tvix/castore";
import {
  CachingNarCalculationService,
  decodeNixbase32,
  type PathInfoService,
  RenderingNarCalculationService,
  STORE_DIR,
} from "@tvix/store";
import { LRUCache } from "lru-cache";
import type { BridgeContext } from "./context.ts";
import { DebugInfoScan } from "./debug-info-scan.ts";
import {
  type Answered,
  Exchange,
  type HttpRequest,
  type HttpResponse,
  type TextAnswer,
} from "./exchange.ts";
import { FileHashes } from "./file-hashes.ts";
import { Router } from "./router.ts";
import { buildTraceRoutes } from "./routes/build-trace.ts";
import { cacheInfoRoutes } from "./routes/cache-info.ts";
import { debugInfoRoutes } from "./routes/debuginfo.ts";
import { getMissingRoutes } from "./routes/get-missing.ts";
import { listingRoutes } from "./routes/listing.ts";
import { listingUploadRoutes } from "./routes/listing-upload.ts";
import { logRoutes } from "./routes/log.ts";
import { narRoutes } from "./routes/nar.ts";
import { narUploadRoutes } from "./routes/nar-upload.ts";
import { narInfoRoutes } from "./routes/narinfo.ts";
import { narInfoUploadRoutes } from "./routes/narinfo-upload.ts";
import { serveRoutes } from "./routes/serve.ts";
import { SideObjects } from "./side-objects.ts";
import { Signer, type SigningOptions } from "./signer.ts";
import { StoredNars } from "./stored-nars.ts";
import { type UploadSlotOptions, UploadSlots } from "./upload/upload-slots.ts";
import { Uploads } from "./upload/uploads.ts";
import type { PullThrough, PullThroughOptions } from "./upstream/pull-through.ts";
import type { UpstreamsOptions } from "./upstream/upstreams.ts";

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
  /** A key that signs store paths whose NAR was verified here. Default: nothing is signed. */
  signing?: SigningOptions | undefined;
  /** Longest file that a client may push, and longest NAR in it, in bytes. Default: 64 GiB. */
  maxUploadBytes?: number | undefined;
  /** Bounds the uploads that are under way at once. */
  uploads?: UploadSlotOptions;
  /** How long a pushed NAR waits for its narinfo, in milliseconds. Default: a day. */
  uploadTtlMs?: number;
  /** Called when abandoned uploads cannot be deleted. Default: they are tried again later. */
  onSweepError?: (error: unknown) => void;
  /**
   * Binary caches whose store paths are served as well: stored once their NAR was asked for. Below the path `/local` they are
   * not asked. Default: none.
   */
  upstreams?: UpstreamsOptions | undefined;
  /** Called once for each request. Default: nothing is logged. */
  onAnswered?: (answered: Answered, request: HttpRequest) => void;
}

/** A binary cache of Nix over HTTP. Disposing of it ends what it does in the background. */
export interface NarBridge extends AsyncDisposable {
  /**
   * Answers a request. Never throws.
   *
   * @param isWaiting whether the client waits for `writeContinue` before it sends a body, as the event `checkContinue` of
   *   servers tells. Default: false
   * @param client whose limit of uploads the request counts for. Default: its address
   */
  handle(request: HttpRequest, response: HttpResponse, isWaiting?: boolean, client?: string): void;
}

/** How long a pushed NAR waits for its narinfo, and how often that is looked at. */
const UPLOAD_TTL_MS = 24 * 60 * 60 * 1000;
const SWEEP_MS = 60 * 60 * 1000;

/** How many characters of narinfos are kept as they were served, and how long, in milliseconds. */
const NARINFO_CHARACTERS = 16 * 1024 * 1024;
const NARINFO_MS = 1000;
/** How exactly that is kept, in milliseconds: the clock is read, and a timer started, no more often. */
const NARINFO_RESOLUTION_MS = 50;

const ROUTES = [
  cacheInfoRoutes,
  narInfoRoutes,
  narInfoUploadRoutes,
  serveRoutes,
  narRoutes,
  narUploadRoutes,
  getMissingRoutes,
  listingRoutes,
  listingUploadRoutes,
  logRoutes,
  buildTraceRoutes,
  debugInfoRoutes,
];

/**
 * Makes a binary cache of Nix over three services.
 *
 * @throws CastoreError `invalid_argument` for upstreams if the proxy that the environment names is not one of HTTP
 */
export async function createNarBridge(options: NarBridgeOptions): Promise<NarBridge> {
  const { blobService, directoryService, pathInfoService, objects, onAnswered } = options;
  const storeDir = options.storeDir ?? STORE_DIR;
  const inner = new RenderingNarCalculationService({ blobService, directoryService });
  const narCalculationService = new CachingNarCalculationService({ inner });
  const sideObjects = new SideObjects(objects);
  const fileHashes = new FileHashes(sideObjects);
  const nars = new StoredNars({ blobService, directoryService }, fileHashes);
  const services = { blobService, directoryService, pathInfoService };
  const pullThrough = options.upstreams?.caches.length
    ? await openPullThrough({ ...services, nars }, options.upstreams)
    : undefined;
  const maxUploadBytes = options.maxUploadBytes ?? 64 * 1024 ** 3;
  const uploads = new Uploads({ ...services, sideObjects, nars, maxBytes: maxUploadBytes });
  const context: BridgeContext = {
    ...services,
    ...{ sideObjects, storeDir, nars, fileHashes, pullThrough, uploads, maxUploadBytes },
    debugInfoScan: new DebugInfoScan({ directoryService, pathInfoService, sideObjects }),
    narInfos: new LRUCache<string, TextAnswer>({
      maxSize: NARINFO_CHARACTERS,
      sizeCalculation: ({ text }) => text.length,
      ttl: NARINFO_MS,
      ttlResolution: NARINFO_RESOLUTION_MS,
    }),
    announce: options.announce ?? "zstd",
    signer: new Signer(options.signing, { storeDir, narCalculationService }),
    uploadSlots: new UploadSlots(options.uploads),
    priority: options.priority ?? 39,
    wantMassQuery: options.wantMassQuery ?? true,
  };
  const router = new Router();
  for (const addRoutes of ROUTES) {
    addRoutes(router, context);
    if (pullThrough) addRoutes(router.under("/local"), { ...context, pullThrough: undefined });
  }
  const { uploadTtlMs = UPLOAD_TTL_MS, onSweepError = () => undefined } = options;
  const isStored = async (hashParts: readonly string[]) => {
    const digests = hashParts.map((hashPart) => decodeNixbase32(hashPart));
    return (await pathInfoService.getMany(digests)).some((found) => found !== undefined);
  };
  const sweep = () =>
    sideObjects.sweepUploads(Date.now() - uploadTtlMs, isStored).catch(onSweepError);
  const sweeping = setInterval(sweep, Math.min(uploadTtlMs, SWEEP_MS)).unref();
  return {
    handle(request, response, isWaiting = false, client = request.socket.remoteAddress ?? "unix") {
      const exchange = new Exchange(request, response, { client, isWaiting, onAnswered });
      try {
        router.answer(exchange)?.catch((error) => exchange.fail(error));
      } catch (error) {
        exchange.fail(error);
      }
    },
    async [Symbol.asyncDispose]() {
      clearInterval(sweeping);
      await uploads[Symbol.asyncDispose]();
      await pullThrough?.[Symbol.asyncDispose]();
    },
  };
}

/** Loads what only a cache in front of others needs, an HTTP client above all. */
async function openPullThrough(
  services: Omit<PullThroughOptions, "upstreams">,
  upstreams: UpstreamsOptions,
): Promise<PullThrough> {
  const { PullThrough } = await import("./upstream/pull-through.ts");
  const { Upstreams } = await import("./upstream/upstreams.ts");
  return new PullThrough({ ...services, upstreams: new Upstreams(upstreams) });
}
