import { type DirectoryService, MemoryBlobService, openDirectoryService } from "@tvix/castore";
import { registerCastoreServices } from "@tvix/castore/rpc";
import { directoryServiceSuite } from "../src/index.ts";
import { disposingOf, overGrpc } from "./grpc-over.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const backends: Readonly<Record<string, () => Promise<DirectoryService>>> = {
  MemoryDirectoryService: () => openDirectoryService("memory://"),
  "SqliteDirectoryService in memory": () => openDirectoryService("sqlite://"),
  SqliteDirectoryService: async () => {
    const folder = temporaryFolder();
    return disposingOf(await openDirectoryService(`sqlite://${folder.path}/directories`), folder);
  },
};

for (const [name, create] of Object.entries(backends)) {
  directoryServiceSuite(name, { create });
  directoryServiceSuite(`GrpcDirectoryService over ${name}`, {
    async create() {
      const blobService = new MemoryBlobService();
      const directoryService = await create();
      return await overGrpc(
        directoryService,
        (router) => registerCastoreServices(router, { blobService, directoryService }),
        openDirectoryService,
      );
    },
  });
}
