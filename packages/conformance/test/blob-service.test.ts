import {
  type BlobService,
  CombinedBlobService,
  MemoryBlobService,
  MemoryDirectoryService,
  openBlobService,
} from "@tvix/castore";
import { castoreServices, type ServedService } from "@tvix/castore/rpc";
import { type BlobServiceSuiteOptions, blobServiceSuite } from "../src/index.ts";
import { CLOUDS } from "./clouds.ts";
import { ConnectBlobService } from "./connect-blob-service.ts";
import { disposingOf, overGrpc, pairOverGrpc, SERVED_BY, type Served } from "./grpc-over.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const capabilities = { chunks: true };

const backends: Readonly<Record<string, BlobServiceSuiteOptions>> = {
  MemoryBlobService: { create: () => openBlobService("memory://") },
  PackBlobService: {
    async create() {
      const folder = temporaryFolder();
      return disposingOf(await openBlobService(`pack://${folder.path}/blobs`), folder);
    },
    async createPair() {
      const folder = temporaryFolder();
      const address = `pack://${folder.path}/blobs`;
      const [first, second] = [await openBlobService(address), await openBlobService(address)];
      return [first, disposingOf(second, folder)];
    },
  },
  "ObjectStoreBlobService in memory": {
    create: () => openBlobService("objectstore+memory:///"),
  },
  "ObjectStoreBlobService over files": {
    async create() {
      const folder = temporaryFolder();
      return disposingOf(await openBlobService(`objectstore+file://${folder.path}/blobs`), folder);
    },
    async createPair() {
      const folder = temporaryFolder();
      const address = `objectstore+file://${folder.path}/blobs`;
      const [first, second] = [await openBlobService(address), await openBlobService(address)];
      return [first, disposingOf(second, folder)];
    },
  },
};

const createInMemory = async () => new MemoryBlobService();

/** Serves a blob service, and opens a client for it. */
function served(
  blobService: BlobService,
  isServed: (service: ServedService) => boolean = () => true,
): Served<BlobService> {
  const services = castoreServices({ blobService, directoryService: new MemoryDirectoryService() });
  return [blobService, services.filter(isServed), openBlobService];
}

for (const [name, options] of Object.entries(backends)) {
  const capabilities = { chunks: true, keepsChunks: name.startsWith("ObjectStore") };
  blobServiceSuite(name, { ...options, capabilities });
}

// The gRPC server is independent of the implementation behind it, but that only some keep frames as they are.
for (const by of SERVED_BY) {
  const open = by === "streams" ? backends.PackBlobService!.create : createInMemory;
  blobServiceSuite(`GrpcBlobService, served by ${by}`, {
    create: async () => overGrpc(...served(await open()), by),
    createPair: async () => pairOverGrpc(...served(await open()), by),
    capabilities,
  });
}

blobServiceSuite("GrpcBlobService over a server that takes no batches", {
  create: () =>
    overGrpc(
      ...served(new MemoryBlobService(), ({ service }) => service.name !== "BlobBatchService"),
      "Connect",
    ),
  capabilities,
});

blobServiceSuite("a client of Connect, served by streams", {
  async create() {
    const [backend, services] = served(new MemoryBlobService());
    const connect = async (address: string) => new ConnectBlobService(address);
    return await overGrpc<BlobService>(backend, services, connect, "streams");
  },
  capabilities,
});

const modes = ["write-through", "near-only", "far-only"] as const;
for (const mode of modes) {
  blobServiceSuite(`CombinedBlobService, ${mode}`, {
    create: () => openBlobService(`combined://?near=memory://&far=memory://&mode=${mode}`),
    capabilities,
  });
}

blobServiceSuite("CombinedBlobService of packs and a gRPC server of an object store", {
  async create() {
    const folder = temporaryFolder();
    const near = await openBlobService(`pack://${folder.path}/near`);
    const backend = await openBlobService("objectstore+memory:///");
    const far = await overGrpc(...served(backend), "streams");
    return disposingOf(new CombinedBlobService({ near, far }), near, far, folder);
  },
  capabilities: { ...capabilities, keepsChunks: true },
});

for (const [cloud, describeWithCloud] of Object.entries(CLOUDS)) {
  describeWithCloud(`an object store of ${cloud}`, (newBucket) => {
    blobServiceSuite(`ObjectStoreBlobService over ${cloud}`, {
      create: async () => await openBlobService(`objectstore+${await newBucket()}`),
      async createPair() {
        const address = `objectstore+${await newBucket()}`;
        return [await openBlobService(address), await openBlobService(address)];
      },
      capabilities: { ...capabilities, keepsChunks: true },
    });
  });
}
