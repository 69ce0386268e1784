import {
  CacheDirectoryService,
  type DirectoryService,
  MemoryBlobService,
  MemoryDirectoryService,
  openDirectoryService,
} from "@tvix/castore";
import { castoreServices } from "@tvix/castore/rpc";
import { type DirectoryServiceSuiteOptions, directoryServiceSuite } from "../src/index.ts";
import { CLOUDS } from "./clouds.ts";
import { disposingOf, overGrpc, pairOverGrpc, SERVED_BY, type Served } from "./grpc-over.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const backends: Readonly<Record<string, DirectoryServiceSuiteOptions>> = {
  MemoryDirectoryService: { create: () => openDirectoryService("memory://") },
  "SqliteDirectoryService in memory": { create: () => openDirectoryService("sqlite://") },
  SqliteDirectoryService: {
    async create() {
      const folder = temporaryFolder();
      return disposingOf(await openDirectoryService(`sqlite://${folder.path}/directories`), folder);
    },
    async createPair() {
      const folder = temporaryFolder();
      const address = `sqlite://${folder.path}/directories`;
      const first = await openDirectoryService(address);
      return [first, disposingOf(await openDirectoryService(address), folder)];
    },
  },
  "ObjectStoreDirectoryService in memory": {
    create: () => openDirectoryService("objectstore+memory:///"),
  },
  "ObjectStoreDirectoryService over files": {
    async create() {
      const folder = temporaryFolder();
      const address = `objectstore+file://${folder.path}/directories`;
      return disposingOf(await openDirectoryService(address), folder);
    },
    async createPair() {
      const folder = temporaryFolder();
      const address = `objectstore+file://${folder.path}/directories`;
      const first = await openDirectoryService(address);
      return [first, disposingOf(await openDirectoryService(address), folder)];
    },
  },
};

/** Serves a directory service, and opens a client for it. */
function served(directoryService: DirectoryService): Served<DirectoryService> {
  const blobService = new MemoryBlobService();
  return [
    directoryService,
    castoreServices({ blobService, directoryService }),
    openDirectoryService,
  ];
}

for (const [name, options] of Object.entries(backends)) directoryServiceSuite(name, options);

// The gRPC server is independent of the implementation behind it.
for (const by of SERVED_BY) {
  directoryServiceSuite(`GrpcDirectoryService, served by ${by}`, {
    create: () => overGrpc(...served(new MemoryDirectoryService()), by),
    createPair: () => pairOverGrpc(...served(new MemoryDirectoryService()), by),
  });
}

const modes = ["write-through", "near-only", "far-only"] as const;
for (const mode of modes) {
  directoryServiceSuite(`CacheDirectoryService, ${mode}`, {
    create: () => openDirectoryService(`cache://?near=memory://&far=memory://&mode=${mode}`),
    longest: mode === "write-through",
  });
}

directoryServiceSuite("CacheDirectoryService of SQLite and a gRPC server of an object store", {
  async create() {
    const near = await openDirectoryService("sqlite://");
    const backend = await openDirectoryService("objectstore+memory:///");
    const far = await overGrpc(...served(backend), "streams");
    return disposingOf(new CacheDirectoryService({ near, far }), near, far);
  },
});

for (const [cloud, describeWithCloud] of Object.entries(CLOUDS)) {
  describeWithCloud(`an object store of ${cloud}`, (newBucket) => {
    directoryServiceSuite(`ObjectStoreDirectoryService over ${cloud}`, {
      create: async () => await openDirectoryService(`objectstore+${await newBucket()}`),
      async createPair() {
        const address = `objectstore+${await newBucket()}`;
        return [await openDirectoryService(address), await openDirectoryService(address)];
      },
    });
  });
}
