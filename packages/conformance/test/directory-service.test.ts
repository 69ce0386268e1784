import {
  CacheDirectoryService,
  type DirectoryService,
  MemoryBlobService,
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

/** What serves a directory service, and opens it again. */
function served(directoryService: DirectoryService): Served<DirectoryService> {
  const blobService = new MemoryBlobService();
  return [
    directoryService,
    castoreServices({ blobService, directoryService }),
    openDirectoryService,
  ];
}

for (const [name, options] of Object.entries(backends)) {
  directoryServiceSuite(name, options);
  for (const by of name.startsWith("ObjectStore") ? [] : SERVED_BY) {
    directoryServiceSuite(`GrpcDirectoryService over ${name}, served by ${by}`, {
      create: async () => await overGrpc(...served(await options.create()), by),
      createPair: async () => await pairOverGrpc(...served(await options.create()), by),
    });
  }
}

for (const name of Object.keys(backends).filter((name) => name.startsWith("ObjectStore"))) {
  directoryServiceSuite(`GrpcDirectoryService over ${name}`, {
    create: async () => await overGrpc(...served(await backends[name]!.create()), "streams"),
  });
}

const modes = ["write-through", "near-only", "far-only"] as const;
for (const mode of modes) {
  directoryServiceSuite(`CacheDirectoryService of memory and SQLite, ${mode}`, {
    create: () => openDirectoryService(`cache://?near=memory://&far=sqlite://&mode=${mode}`),
  });
}

/** SQLite before something else, which is disposed of with it. */
async function sqliteBefore(far: DirectoryService): Promise<DirectoryService> {
  const near = await openDirectoryService("sqlite://");
  return disposingOf(new CacheDirectoryService({ near, far }), near, far);
}

directoryServiceSuite("CacheDirectoryService of SQLite and a gRPC server", {
  create: async () =>
    sqliteBefore(await overGrpc(...served(await openDirectoryService("memory://")), "streams")),
});

directoryServiceSuite("CacheDirectoryService of SQLite and an object store", {
  create: async () => sqliteBefore(await openDirectoryService("objectstore+memory:///")),
});

directoryServiceSuite("GrpcDirectoryService over a CacheDirectoryService", {
  async create() {
    const cache = await sqliteBefore(await openDirectoryService("objectstore+memory:///"));
    return await overGrpc(...served(cache), "streams");
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
    if (cloud !== "S3") return; // how clouds differ, what is before them does not see
    directoryServiceSuite(`CacheDirectoryService of SQLite and ${cloud}`, {
      create: async () =>
        sqliteBefore(await openDirectoryService(`objectstore+${await newBucket()}`)),
    });
    directoryServiceSuite(`GrpcDirectoryService over ${cloud}`, {
      async create() {
        const backend = await openDirectoryService(`objectstore+${await newBucket()}`);
        return await overGrpc(...served(backend), "streams");
      },
    });
  });
}
