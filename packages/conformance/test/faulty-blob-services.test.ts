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
import { temporaryFolder } from "./temporary-folder.ts";

/** As many that a suite meets them all over, and so few that all it does ends. */
const FAULTS: Faults = { fail: 0.1, delay: 0.01, truncate: 0.1, corrupt: 0.1, atMost: 30 };
const DELAYS: Faults = { delay: 0.02 };

const quiet = { onCorrupt: () => undefined, onWarning: () => undefined };

function onFaultyStore(faults: Faults, seed: number, store = new MemoryObjectStore()): BlobService {
  const faulty = new FaultyObjectStore(store, faults, seed);
  return new ObjectStoreBlobService({ store: faulty, ...quiet });
}

async function openPack(): Promise<BlobService> {
  const folder = temporaryFolder();
  return disposingOf(await openBlobService(`pack://${folder.path}/blobs`), folder);
}

/** A client of a server with a blob service. */
async function served(blobService: BlobService): Promise<BlobService> {
  const services = castoreServices({ blobService, directoryService: new MemoryDirectoryService() });
  return await overGrpc(blobService, services, openBlobService, "streams");
}

const capabilities = { chunks: true, keepsChunks: true };

for (const seed of [1, 2]) {
  blobServiceSuite(`ObjectStoreBlobService on a faulty store, called again (seed ${seed})`, {
    create: async () => new RepeatingBlobService(onFaultyStore(FAULTS, seed)),
    async createPair() {
      const store = new MemoryObjectStore();
      const open = (seed: number) => onFaultyStore(FAULTS, seed, store);
      return [new RepeatingBlobService(open(seed)), new RepeatingBlobService(open(seed + 100))];
    },
    capabilities,
  });

  blobServiceSuite(`CombinedBlobService with a faulty near half (seed ${seed})`, {
    async create() {
      const near = onFaultyStore({ ...FAULTS, atMost: Number.POSITIVE_INFINITY }, seed);
      const far = new MemoryBlobService();
      return disposingOf(new CombinedBlobService({ near, far, ...quiet }), near, far);
    },
    capabilities,
  });
}

blobServiceSuite("GrpcBlobService over a faulty service, called again", {
  async create() {
    const faulty = new FaultyBlobService(await openPack(), FAULTS, 1);
    return new RepeatingBlobService(await served(faulty));
  },
  capabilities: { chunks: true },
});

blobServiceSuite("PackBlobService that fails, called again", {
  async create() {
    const { fail, delay, atMost } = FAULTS as Required<Faults>;
    return new RepeatingBlobService(
      new FaultyBlobService(await openPack(), { fail, delay, atMost }, 1),
    );
  },
  capabilities: { chunks: true },
});

blobServiceSuite("ObjectStoreBlobService on a slow store", {
  create: async () => onFaultyStore(DELAYS, 1),
  capabilities,
});

blobServiceSuite("GrpcBlobService over a slow PackBlobService", {
  create: async () => await served(new FaultyBlobService(await openPack(), DELAYS, 1)),
  capabilities: { chunks: true },
});
