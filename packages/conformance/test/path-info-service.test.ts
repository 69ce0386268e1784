import { MemoryBlobService, MemoryDirectoryService } from "@tvix/castore";
import {
  CachePathInfoService,
  openPathInfoService,
  type PathInfoService,
  RenderingNarCalculationService,
} from "@tvix/store";
import { storeServices } from "@tvix/store/rpc";
import { type PathInfoServiceSuiteOptions, pathInfoServiceSuite } from "../src/index.ts";
import { disposingOf, overGrpc, pairOverGrpc, SERVED_BY, type Served } from "./grpc-over.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const backends: Readonly<Record<string, PathInfoServiceSuiteOptions>> = {
  MemoryPathInfoService: { create: () => openPathInfoService("memory://") },
  "SqlitePathInfoService in memory": { create: () => openPathInfoService("sqlite://") },
  SqlitePathInfoService: {
    async create() {
      const folder = temporaryFolder();
      return disposingOf(await openPathInfoService(`sqlite://${folder.path}/path-infos`), folder);
    },
    async createPair() {
      const folder = temporaryFolder();
      const address = `sqlite://${folder.path}/path-infos`;
      const first = await openPathInfoService(address);
      return [first, disposingOf(await openPathInfoService(address), folder)];
    },
  },
};

/** What serves a PathInfo service, and opens it again. */
function served(pathInfoService: PathInfoService): Served<PathInfoService> {
  const narCalculationService = new RenderingNarCalculationService({
    blobService: new MemoryBlobService(),
    directoryService: new MemoryDirectoryService(),
  });
  return [
    pathInfoService,
    storeServices({ pathInfoService, narCalculationService }),
    openPathInfoService,
  ];
}

for (const [name, options] of Object.entries(backends)) {
  pathInfoServiceSuite(name, options);
  for (const by of SERVED_BY) {
    pathInfoServiceSuite(`GrpcPathInfoService over ${name}, served by ${by}`, {
      create: async () => await overGrpc(...served(await options.create()), by),
      createPair: async () => await pairOverGrpc(...served(await options.create()), by),
    });
  }
}

const modes = ["write-through", "near-only", "far-only"] as const;
for (const mode of modes) {
  pathInfoServiceSuite(`CachePathInfoService of memory and SQLite, ${mode}`, {
    create: () => openPathInfoService(`cache://?near=memory://&far=sqlite://&mode=${mode}`),
  });
}

pathInfoServiceSuite("CachePathInfoService of the last in memory and a gRPC server", {
  async create() {
    const near = await openPathInfoService("lru://?capacity=3");
    const far = await overGrpc(...served(await openPathInfoService("memory://")), "streams");
    return disposingOf(new CachePathInfoService({ near, far }), near, far);
  },
});

pathInfoServiceSuite("GrpcPathInfoService over a CachePathInfoService", {
  async create() {
    const cache = await openPathInfoService("cache://?near=memory://&far=sqlite://");
    return await overGrpc(...served(cache), "streams");
  },
});

pathInfoServiceSuite("LruPathInfoService that has room", {
  create: () => openPathInfoService("lru://?capacity=10000"),
});
