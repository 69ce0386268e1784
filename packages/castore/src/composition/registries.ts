/** The services of this package, by type. */
import type { BlobService } from "../blobservice/blob-service.ts";
import { CombinedBlobService } from "../blobservice/combined.ts";
import { MemoryBlobService } from "../blobservice/memory.ts";
import { PackBlobService } from "../blobservice/pack.ts";
import { CacheDirectoryService } from "../directoryservice/cache.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import { MemoryDirectoryService } from "../directoryservice/memory.ts";
import { SqliteDirectoryService } from "../directoryservice/sqlite.ts";
import { type ServiceRegistry, serviceType } from "./registry.ts";
import { expectPath } from "./service-address.ts";
import { grpcType, memoryType, sqliteType, tierType } from "./service-types.ts";

// What most commands have no use for, and takes long to load, is imported where it is needed.

/** The types of blob services. */
export const BLOB_SERVICES: ServiceRegistry<BlobService> = {
  kind: "blob service",
  types: {
    memory: memoryType(() => new MemoryBlobService()),
    pack: serviceType({
      plain: true,
      config: (address) => ({ ...address.query, path: expectPath(address) }),
      schema: async () => (await import("./keys.ts")).PACK_KEYS,
      async open({ path, zstd_level, avg_chunk_size, max_pack_size }, { signal }) {
        return await PackBlobService.open({
          path,
          zstdLevel: zstd_level,
          averageChunkSize: avg_chunk_size,
          maxPackSize: max_pack_size,
          signal,
        });
      },
    }),
    grpc: grpcType(async (address) => {
      const { GrpcBlobService, openChannel } = await import("../grpc/index.ts");
      return new GrpcBlobService(openChannel(address));
    }),
    combined: tierType("blobservices", (options) => new CombinedBlobService(options)),
  },
  elsewhere: { redb: '"pack"', sled: '"pack"' },
};

/** The types of directory services. */
export const DIRECTORY_SERVICES: ServiceRegistry<DirectoryService> = {
  kind: "directory service",
  types: {
    memory: memoryType(() => new MemoryDirectoryService()),
    sqlite: sqliteType((options) => SqliteDirectoryService.open(options)),
    grpc: grpcType(async (address) => {
      const { GrpcDirectoryService, openChannel } = await import("../grpc/index.ts");
      return new GrpcDirectoryService(openChannel(address));
    }),
    cache: tierType("directoryservices", (options) => new CacheDirectoryService(options)),
  },
  elsewhere: { redb: '"sqlite"', sled: '"sqlite"' },
};
