import {
  CacheDirectoryService,
  type DirectoryService,
  MemoryBlobService,
  MemoryDirectoryService,
  MemoryObjectStore,
  ObjectStoreDirectoryService,
  openDirectoryService,
} from "@tvix/castore";
import { castoreServices } from "@tvix/castore/rpc";
import {
  directoryServiceSuite,
  type Faults,
  FaultyDirectoryService,
  FaultyObjectStore,
  RepeatingDirectoryService,
} from "../src/index.ts";
import { disposingOf, overGrpc } from "./grpc-over.ts";

/** As many that a suite meets them all over, and so few that all it does ends. */
const FAULTS: Faults = { fail: 0.1, delay: 0.01, truncate: 0.1, corrupt: 0.1, atMost: 30 };
const DELAYS: Faults = { delay: 0.02 };

const quiet = { onCorrupt: () => undefined, onWarning: () => undefined };

function onFaultyStore(
  faults: Faults,
  seed: number,
  store = new MemoryObjectStore(),
): DirectoryService {
  const faulty = new FaultyObjectStore(store, faults, seed);
  return new ObjectStoreDirectoryService({ store: faulty, ...quiet });
}

/** A client of a server with a directory service. */
async function served(directoryService: DirectoryService): Promise<DirectoryService> {
  const services = castoreServices({ blobService: new MemoryBlobService(), directoryService });
  return await overGrpc(directoryService, services, openDirectoryService, "streams");
}

for (const seed of [1, 2, 3]) {
  directoryServiceSuite(
    `ObjectStoreDirectoryService on a faulty store, called again (seed ${seed})`,
    {
      create: async () => new RepeatingDirectoryService(onFaultyStore(FAULTS, seed)),
      async createPair() {
        const store = new MemoryObjectStore();
        const open = (seed: number) => onFaultyStore(FAULTS, seed, store);
        return [
          new RepeatingDirectoryService(open(seed)),
          new RepeatingDirectoryService(open(seed + 100)),
        ];
      },
    },
  );

  directoryServiceSuite(`GrpcDirectoryService over a faulty service, called again (seed ${seed})`, {
    async create() {
      const sqlite = await openDirectoryService("sqlite://");
      const faulty = new FaultyDirectoryService(sqlite, FAULTS, seed);
      return new RepeatingDirectoryService(await served(faulty));
    },
  });

  directoryServiceSuite(`CacheDirectoryService with a faulty near half (seed ${seed})`, {
    async create() {
      const near = onFaultyStore({ ...FAULTS, atMost: Number.POSITIVE_INFINITY }, seed);
      const far = new MemoryDirectoryService();
      return disposingOf(new CacheDirectoryService({ near, far, ...quiet }), near, far);
    },
  });
}

directoryServiceSuite("SqliteDirectoryService that fails, called again", {
  async create() {
    const { fail, delay, atMost } = FAULTS as Required<Faults>;
    const sqlite = await openDirectoryService("sqlite://");
    const faulty = new FaultyDirectoryService(sqlite, { fail, delay, atMost }, 1);
    return new RepeatingDirectoryService(faulty);
  },
});

directoryServiceSuite("ObjectStoreDirectoryService on a slow store", {
  create: async () => onFaultyStore(DELAYS, 1),
});

directoryServiceSuite("GrpcDirectoryService over a slow SqliteDirectoryService", {
  create: async () =>
    await served(new FaultyDirectoryService(await openDirectoryService("sqlite://"), DELAYS, 1)),
});
