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
const FAULTS: Faults = { fail: 0.1, delay: 0.02, truncate: 0.1, corrupt: 0.1, atMost: 30 };

const quiet = { onCorrupt: () => undefined, onWarning: () => undefined };

function onFaultyStore(
  faults: Faults,
  seed: number,
  store = new MemoryObjectStore(),
): DirectoryService {
  const faulty = new FaultyObjectStore(store, faults, seed);
  return new ObjectStoreDirectoryService({ store: faulty, ...quiet });
}

/** A client of a server with a directory service, which makes no call again. */
async function served(directoryService: DirectoryService): Promise<DirectoryService> {
  const services = castoreServices({ blobService: new MemoryBlobService(), directoryService });
  const open = (address: string) => openDirectoryService(`${address}?retry_ms=0`);
  return await overGrpc(directoryService, services, open, "streams");
}

directoryServiceSuite("ObjectStoreDirectoryService on a faulty store, called again", {
  create: async () => new RepeatingDirectoryService(onFaultyStore(FAULTS, 1)),
  async createPair() {
    const store = new MemoryObjectStore();
    const open = (seed: number) => onFaultyStore(FAULTS, seed, store);
    return [new RepeatingDirectoryService(open(2)), new RepeatingDirectoryService(open(3))];
  },
  longest: false,
});

directoryServiceSuite("GrpcDirectoryService over a faulty service, called again", {
  async create() {
    const faulty = new FaultyDirectoryService(new MemoryDirectoryService(), FAULTS, 1);
    return new RepeatingDirectoryService(await served(faulty));
  },
  longest: false,
});

directoryServiceSuite("CacheDirectoryService with a faulty near half", {
  async create() {
    const near = onFaultyStore({ ...FAULTS, atMost: Number.POSITIVE_INFINITY }, 1);
    const far = new MemoryDirectoryService();
    return disposingOf(new CacheDirectoryService({ near, far, ...quiet }), near, far);
  },
  longest: false,
});
