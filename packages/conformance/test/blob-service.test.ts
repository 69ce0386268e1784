import { type BlobService, MemoryDirectoryService, openBlobService } from "@tvix/castore";
import { registerCastoreServices } from "@tvix/castore/rpc";
import { blobServiceSuite } from "../src/index.ts";
import { disposingOf, overGrpc } from "./grpc-over.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const capabilities = { chunks: true };

const backends: Readonly<Record<string, () => Promise<BlobService>>> = {
  MemoryBlobService: () => openBlobService("memory://"),
  PackBlobService: async () => {
    const folder = temporaryFolder();
    return disposingOf(await openBlobService(`pack://${folder.path}/blobs`), folder);
  },
};

for (const [name, create] of Object.entries(backends)) {
  blobServiceSuite(name, { create, capabilities });
  blobServiceSuite(`GrpcBlobService over ${name}`, {
    capabilities,
    async create() {
      const blobService = await create();
      const directoryService = new MemoryDirectoryService();
      return await overGrpc(
        blobService,
        (router) => registerCastoreServices(router, { blobService, directoryService }),
        openBlobService,
      );
    },
  });
}
