import { MemoryBlobService, MemoryDirectoryService } from "@tvix/castore";
import {
  openPathInfoService,
  type PathInfoService,
  RenderingNarCalculationService,
} from "@tvix/store";
import { registerStoreServices } from "@tvix/store/rpc";
import { pathInfoServiceSuite } from "../src/index.ts";
import { disposingOf, overGrpc } from "./grpc-over.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const backends: Readonly<Record<string, () => Promise<PathInfoService>>> = {
  MemoryPathInfoService: () => openPathInfoService("memory://"),
  "SqlitePathInfoService in memory": () => openPathInfoService("sqlite://"),
  SqlitePathInfoService: async () => {
    const folder = temporaryFolder();
    return disposingOf(await openPathInfoService(`sqlite://${folder.path}/path-infos`), folder);
  },
};

for (const [name, create] of Object.entries(backends)) {
  pathInfoServiceSuite(name, { create });
  pathInfoServiceSuite(`GrpcPathInfoService over ${name}`, {
    async create() {
      const pathInfoService = await create();
      const narCalculationService = new RenderingNarCalculationService({
        blobService: new MemoryBlobService(),
        directoryService: new MemoryDirectoryService(),
      });
      return await overGrpc(
        pathInfoService,
        (router) => registerStoreServices(router, { pathInfoService, narCalculationService }),
        openPathInfoService,
      );
    },
  });
}
