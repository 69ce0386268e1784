import {
  type BlobService,
  CacheDirectoryService,
  CombinedBlobService,
  type DirectoryService,
  MemoryBlobService,
  MemoryDirectoryService,
  openBlobService,
  openDirectoryService,
} from "@tvix/castore";
import { castoreServices } from "@tvix/castore/rpc";
import { blobTiersSuite, directoryTiersSuite } from "../src/index.ts";
import { overGrpc } from "./grpc-over.ts";

const quiet = { onWarning: () => undefined };

blobTiersSuite("CombinedBlobService", {
  open: async (halves) => new CombinedBlobService({ ...halves, ...quiet }),
  connect(blobService: BlobService) {
    const directoryService = new MemoryDirectoryService();
    const services = castoreServices({ blobService, directoryService });
    return overGrpc(blobService, services, openBlobService, "streams");
  },
});

directoryTiersSuite("CacheDirectoryService", {
  open: async (halves) => new CacheDirectoryService({ ...halves, ...quiet }),
  connect(directoryService: DirectoryService) {
    const services = castoreServices({ blobService: new MemoryBlobService(), directoryService });
    return overGrpc(directoryService, services, openDirectoryService, "streams");
  },
});
