/** The suites over the server of the daemon, which answers straight on the streams of HTTP/2. */
import { join } from "node:path";
import {
  type BlobService,
  type DirectoryService,
  MemoryBlobService,
  MemoryDirectoryService,
  openBlobService,
  openDirectoryService,
} from "@tvix/castore";
import { castoreServices } from "@tvix/castore/rpc";
import { blobServiceSuite, directoryServiceSuite, pathInfoServiceSuite } from "@tvix/conformance";
import {
  MemoryPathInfoService,
  openPathInfoService,
  type PathInfoService,
  RenderingNarCalculationService,
} from "@tvix/store";
import { storeServices } from "@tvix/store/rpc";
import { pino } from "pino";
import { startServer } from "../src/server/server.ts";
import { temporaryFolder } from "./harness.ts";

/** Serves stores in memory, and opens one of them; disposing of that ends the server. */
async function served<Service extends AsyncDisposable>(
  open: (address: string) => Promise<Service>,
): Promise<Service> {
  const folder = temporaryFolder();
  const socket = join(folder.path, "sock");
  const blobService = new MemoryBlobService();
  const directoryService = new MemoryDirectoryService();
  const server = await startServer({
    addresses: [socket],
    services: [
      ...castoreServices({ blobService, directoryService }),
      ...storeServices({
        pathInfoService: new MemoryPathInfoService(),
        narCalculationService: new RenderingNarCalculationService({
          blobService,
          directoryService,
        }),
      }),
    ],
    logger: pino({ level: "silent" }),
  });
  const service = await open(`grpc+unix://${socket}`);
  const dispose = service[Symbol.asyncDispose].bind(service);
  service[Symbol.asyncDispose] = async () => {
    await dispose();
    await server[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  };
  return service;
}

blobServiceSuite("GrpcBlobService over the daemon", {
  create: () => served<BlobService>(openBlobService),
  capabilities: { chunks: true },
});

directoryServiceSuite("GrpcDirectoryService over the daemon", {
  create: () => served<DirectoryService>(openDirectoryService),
});

pathInfoServiceSuite("GrpcPathInfoService over the daemon", {
  create: () => served<PathInfoService>(openPathInfoService),
});
