import {
  type AbortOptions,
  instrument,
  MemoryBlobService,
  MemoryDirectoryService,
  symlinkTarget,
} from "@tvix/castore";
import {
  CachePathInfoService,
  fingerprint,
  type ListPathInfosOptions,
  MemoryPathInfoService,
  openPathInfoService,
  PATH_INFO_SERVICES,
  type PathInfo,
  PathInfoPage,
  type PathInfoService,
  RenderingNarCalculationService,
  type Signature,
  SigningKey,
  SigningPathInfoService,
  StorePath,
  type VerifyingKey,
} from "@tvix/store";
import { storeServices } from "@tvix/store/rpc";
import { describe, expect, it, vi } from "vitest";
import { type PathInfoServiceSuiteOptions, pathInfoServiceSuite } from "../src/index.ts";
import { disposingOf, overGrpc, pairOverGrpc, type Served } from "./grpc-over.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const backends = {
  MemoryPathInfoService: { create: () => openPathInfoService("memory://") },
  "SqlitePathInfoService in memory": { create: () => openPathInfoService("sqlite://") },
  SqlitePathInfoService: {
    async create() {
      const folder = temporaryFolder();
      return disposingOf(await openPathInfoService(`sqlite://${folder.path}/path-infos`), folder);
    },
    async createPair() {
      const folder = temporaryFolder();
      const address = `sqlite://${folder.path}/path-infos`;
      const first = await openPathInfoService(address);
      return [first, disposingOf(await openPathInfoService(address), folder)];
    },
  },
} satisfies Record<string, PathInfoServiceSuiteOptions>;

/** Serves a PathInfo service, and opens a client for it. */
function served(pathInfoService: PathInfoService): Served<PathInfoService> {
  const narCalculationService = new RenderingNarCalculationService({
    blobService: new MemoryBlobService(),
    directoryService: new MemoryDirectoryService(),
  });
  return [
    pathInfoService,
    storeServices({ pathInfoService, narCalculationService }),
    openPathInfoService,
  ];
}

/** Like {@link served}, without the batch service, as foreign servers are. */
function servedWithoutBatches(pathInfoService: PathInfoService): Served<PathInfoService> {
  const [backend, [pathInfos], open] = served(pathInfoService);
  return [backend, [pathInfos!], open];
}

function pathInfo(first: number): PathInfo {
  const hashPart = new Uint8Array(20).fill(first);
  return {
    storePath: StorePath.from(hashPart, "name"),
    node: { type: "symlink", target: symlinkTarget("x") },
    references: [],
    narSize: 112n,
    narSha256: new Uint8Array(32),
    signatures: [],
  };
}

/** Counts its listings. */
class CountingPathInfoService extends MemoryPathInfoService {
  opened = 0;
  /** How many of them are open. */
  open = 0;

  override async *listPages(options?: ListPathInfosOptions): AsyncGenerator<PathInfoPage> {
    this.open += 1;
    this.opened += 1;
    try {
      yield* super.listPages(options);
    } finally {
      this.open -= 1;
    }
  }
}

describe.each<[string, (inner: PathInfoService) => Promise<PathInfoService>]>([
  [
    "CachePathInfoService",
    async (far) => new CachePathInfoService({ near: new MemoryPathInfoService(), far }),
  ],
  [
    "SigningPathInfoService",
    async (inner) => new SigningPathInfoService({ inner, key: SigningKey.generate("ours-1") }),
  ],
  [
    "an instrumented service",
    async (inner) => instrument(inner, "PathInfoService", "some name", PATH_INFO_SERVICES.calls),
  ],
  ["GrpcPathInfoService", (inner) => overGrpc(...served(inner), "streams")],
  [
    "GrpcPathInfoService without batches",
    (inner) => overGrpc(...servedWithoutBatches(inner), "Connect"),
  ],
])("a listing of %s", (_, wrap) => {
  it("opens that of the service behind it when it is iterated, and closes it when it is left", async () => {
    const inner = new CountingPathInfoService();
    for (const first of [1, 2, 3]) await inner.put(pathInfo(first));
    await using service = await wrap(inner);
    const listings = Array.from({ length: 10 }, () => service.list());
    await service.get(new Uint8Array(20));
    expect(inner.opened).toBe(0);
    for await (const _ of listings[0]!) break;
    await vi.waitFor(() => expect(inner.open).toBe(0), { timeout: 30_000 });
    expect(inner.opened).toBe(1);
  });
});

for (const [name, options] of Object.entries(backends)) pathInfoServiceSuite(name, options);

for (const [name, by] of [
  ["MemoryPathInfoService", "Connect"],
  ["SqlitePathInfoService", "streams"],
] as const) {
  const { create } = backends[name];
  pathInfoServiceSuite(`GrpcPathInfoService over ${name}, served by ${by}`, {
    create: async () => await overGrpc(...served(await create()), by),
    createPair: async () => await pairOverGrpc(...served(await create()), by),
  });
}

const modes = ["write-through", "near-only", "far-only"] as const;
for (const mode of modes) {
  pathInfoServiceSuite(`CachePathInfoService of memory and SQLite, ${mode}`, {
    create: () => openPathInfoService(`cache://?near=memory://&far=sqlite://&mode=${mode}`),
  });
}

pathInfoServiceSuite("CachePathInfoService of the last in memory and a gRPC server", {
  async create() {
    const near = await openPathInfoService("lru://?capacity=3");
    const far = await overGrpc(...served(await openPathInfoService("memory://")), "streams");
    return disposingOf(new CachePathInfoService({ near, far }), near, far);
  },
});

pathInfoServiceSuite("GrpcPathInfoService over a server without batches", {
  create: async () =>
    await overGrpc(...servedWithoutBatches(await openPathInfoService("memory://")), "Connect"),
});

/** A service that signs, without the signatures by its key, which have to be there and good. */
class WithoutItsSignatures implements PathInfoService {
  readonly #inner: PathInfoService;
  readonly #key: VerifyingKey;

  constructor(inner: PathInfoService, key: VerifyingKey) {
    this.#inner = inner;
    this.#key = key;
  }

  async get(hashPart: Uint8Array, options?: AbortOptions) {
    return this.#strip(await this.#inner.get(hashPart, options));
  }

  async getMany(hashParts: readonly Uint8Array[], options?: AbortOptions) {
    return (await this.#inner.getMany(hashParts, options)).map((one) => this.#strip(one));
  }

  async put(pathInfo: PathInfo, options?: AbortOptions) {
    return this.#strip(await this.#inner.put(pathInfo, options))!;
  }

  async *list(options?: ListPathInfosOptions) {
    for await (const pathInfo of this.#inner.list(options)) yield this.#strip(pathInfo)!;
  }

  async *listPages(options?: ListPathInfosOptions) {
    for await (const page of this.#inner.listPages(options)) {
      yield PathInfoPage.of([...page].map((pathInfo) => this.#strip(pathInfo)!));
    }
  }

  [Symbol.asyncDispose]() {
    return this.#inner[Symbol.asyncDispose]();
  }

  #strip(pathInfo: PathInfo | undefined): PathInfo | undefined {
    if (pathInfo === undefined) return undefined;
    const isOurs = ({ name }: Signature) => name === this.#key.name;
    const [signature, ...others] = pathInfo.signatures.filter(isOurs);
    expect(others).toEqual([]);
    expect(this.#key.verify(fingerprint(pathInfo), signature!)).toBe(true);
    return { ...pathInfo, signatures: pathInfo.signatures.filter((one) => !isOurs(one)) };
  }
}

pathInfoServiceSuite("SigningPathInfoService over memory", {
  async create() {
    const inner = new MemoryPathInfoService();
    const key = SigningKey.generate("ours-1");
    const service = new SigningPathInfoService({ inner, key });
    return new WithoutItsSignatures(service, key.verifyingKey);
  },
});

pathInfoServiceSuite("GrpcPathInfoService over a CachePathInfoService", {
  async create() {
    const cache = await openPathInfoService("cache://?near=memory://&far=sqlite://");
    return await overGrpc(...served(cache), "streams");
  },
});

pathInfoServiceSuite("LruPathInfoService that has room", {
  create: () => openPathInfoService("lru://?capacity=10000"),
});
