import {
  type BlobService,
  CombinedBlobService,
  MemoryBlobService,
  MemoryDirectoryService,
  MemoryObjectStore,
  ObjectStoreBlobService,
  openBlobService,
} from "@tvix/castore";
import { castoreServices } from "@tvix/castore/rpc";
import {
  blobServiceSuite,
  type Faults,
  FaultyBlobService,
  FaultyObjectStore,
  RepeatingBlobService,
} from "../src/index.ts";
import { disposingOf, overGrpc } from "./grpc-over.ts";

/** As many that a suite meets them all over, and so few that all it does ends. */
const FAULTS: Faults = { fail: 0.1, delay: 0.02, truncate: 0.1, corrupt: 0.1, atMost: 30 };

const quiet = { onCorrupt: () => undefined, onWarning: () => undefined };

function onFaultyStore(faults: Faults, seed: number, store = new MemoryObjectStore()): BlobService {
  const faulty = new FaultyObjectStore(store, faults, seed);
  return new ObjectStoreBlobService({ store: faulty, ...quiet });
}

/** A client of a server with a blob service, which makes no call again. */
async function served(blobService: BlobService): Promise<BlobService> {
  const services = castoreServices({ blobService, directoryService: new MemoryDirectoryService() });
  const open = (address: string) => openBlobService(`${address}?retry_ms=0`);
  return await overGrpc(blobService, services, open, "streams");
}

const capabilities = { chunks: true, keepsChunks: true, reliable: false };

blobServiceSuite("ObjectStoreBlobService on a faulty store, called again", {
  create: async () => new RepeatingBlobService(onFaultyStore(FAULTS, 1)),
  async createPair() {
    const store = new MemoryObjectStore();
    const open = (seed: number) => onFaultyStore(FAULTS, seed, store);
    return [new RepeatingBlobService(open(2)), new RepeatingBlobService(open(3))];
  },
  capabilities,
});

blobServiceSuite("CombinedBlobService with a faulty near half", {
  async create() {
    const near = onFaultyStore({ ...FAULTS, atMost: Number.POSITIVE_INFINITY }, 1);
    const far = new MemoryBlobService();
    return disposingOf(new CombinedBlobService({ near, far, ...quiet }), near, far);
  },
  capabilities,
});

blobServiceSuite("GrpcBlobService over a faulty service, called again", {
  async create() {
    const faulty = new FaultyBlobService(new MemoryBlobService(), FAULTS, 1);
    return new RepeatingBlobService(await served(faulty));
  },
  capabilities: { chunks: true, reliable: false },
});
