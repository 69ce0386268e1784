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

/** What serves a blob service, and opens it again. */
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
  // What is behind the services of a server makes no difference any more to how they are served.
  for (const by of capabilities.keepsChunks ? [] : SERVED_BY) {
    blobServiceSuite(`GrpcBlobService over ${name}, served by ${by}`, {
      create: async () => await overGrpc(...served(await options.create()), by),
      createPair: async () => await pairOverGrpc(...served(await options.create()), by),
      capabilities,
    });
  }
}

for (const name of Object.keys(backends).filter((name) => name.startsWith("ObjectStore"))) {
  blobServiceSuite(`GrpcBlobService over ${name}`, {
    create: async () => await overGrpc(...served(await backends[name]!.create()), "streams"),
    capabilities: { ...capabilities, keepsChunks: true },
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
    const [backend, services] = served(await openBlobService("memory://"));
    const connect = async (address: string) => new ConnectBlobService(address);
    return await overGrpc<BlobService>(backend, services, connect, "streams");
  },
  capabilities,
});

const modes = ["write-through", "near-only", "far-only"] as const;
for (const mode of modes) {
  blobServiceSuite(`CombinedBlobService of memory and packs, ${mode}`, {
    async create() {
      const folder = temporaryFolder();
      const address = `combined://?near=memory://&far=pack://${folder.path}/far&mode=${mode}`;
      return disposingOf(await openBlobService(address), folder);
    },
    capabilities,
  });
}

/** Packs in a folder before something else, which is disposed of with them. */
async function packsBefore(far: BlobService): Promise<BlobService> {
  const folder = temporaryFolder();
  const near = await openBlobService(`pack://${folder.path}/near`);
  return disposingOf(new CombinedBlobService({ near, far }), near, far, folder);
}

blobServiceSuite("CombinedBlobService of packs and a gRPC server", {
  create: async () => packsBefore(await overGrpc(...served(new MemoryBlobService()), "streams")),
  capabilities,
});

blobServiceSuite("CombinedBlobService of packs and an object store", {
  create: async () => packsBefore(await openBlobService("objectstore+memory:///")),
  capabilities: { ...capabilities, keepsChunks: true },
});

blobServiceSuite("GrpcBlobService over a CombinedBlobService of packs and an object store", {
  async create() {
    const combined = await packsBefore(await openBlobService("objectstore+memory:///"));
    return await overGrpc(...served(combined), "streams");
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
    if (cloud !== "S3") return; // how clouds differ, what is before them does not see
    blobServiceSuite(`CombinedBlobService of packs and ${cloud}`, {
      create: async () => packsBefore(await openBlobService(`objectstore+${await newBucket()}`)),
      capabilities: { ...capabilities, keepsChunks: true },
    });
    blobServiceSuite(`GrpcBlobService over ${cloud}`, {
      async create() {
        const backend = await openBlobService(`objectstore+${await newBucket()}`);
        return await overGrpc(...served(backend), "streams");
      },
      capabilities: { ...capabilities, keepsChunks: true },
    });
  });
}
