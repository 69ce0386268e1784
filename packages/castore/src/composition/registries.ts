/** The services of this package, by type. */

import { expectPath, withKeys } from "../address/service-address.ts";
import type { BlobService } from "../blobservice/blob-service.ts";
import { CombinedBlobService } from "../blobservice/combined.ts";
import { MemoryBlobService } from "../blobservice/memory.ts";
import { indexPath } from "../blobservice/pack/chunk-index.ts";
import { PackBlobService } from "../blobservice/pack/pack-blob-service.ts";
import { packFolder } from "../blobservice/pack/pack-files.ts";
import { CacheDirectoryService } from "../directoryservice/cache.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import { MemoryDirectoryService } from "../directoryservice/memory.ts";
import { SqliteDirectoryService } from "../directoryservice/sqlite.ts";
import { BLOB_SERVICE_PLAN, DIRECTORY_SERVICE_PLAN } from "./instrument.ts";
import { type ServiceRegistry, serviceType } from "./registry.ts";
import {
  cacheType,
  grpcType,
  memoryType,
  OBJECT_STORE_SCHEMES,
  objectStoreConfig,
  objectStoreFiles,
  sqliteType,
} from "./service-types.ts";

// Modules that are slow to load and that most commands do not use are imported on demand.

/** The types of blob services. */
export const BLOB_SERVICES: ServiceRegistry<BlobService> = {
  kind: "blob service",
  types: {
    memory: memoryType(() => new MemoryBlobService()),
    pack: serviceType({
      plain: true,
      config: (address) => withKeys(address, { path: expectPath(address) }),
      schema: async () => (await import("./keys.ts")).PACK_KEYS,
      files: ({ path }) => [path, indexPath(path), packFolder(path)],
      traces: ({ path }) => [indexPath(path), packFolder(path)],
      async open({ path, zstd_level, avg_chunk_size, max_pack_size }, context) {
        return await PackBlobService.open({
          path,
          zstdLevel: zstd_level,
          averageChunkSize: avg_chunk_size,
          maxPackSize: max_pack_size,
          onCorrupt: context.corrupt,
          signal: context.signal,
        });
      },
    }),
    grpc: grpcType(async (address, options) => {
      const { GrpcBlobService, openChannel } = await import("../grpc/client/index.ts");
      return new GrpcBlobService(openChannel(address, options));
    }),
    objectstore: serviceType({
      schemes: OBJECT_STORE_SCHEMES,
      config: (address) => objectStoreConfig(address, ["avg_chunk_size", "zstd_level"]),
      schema: async () => (await import("./keys.ts")).OBJECT_STORE_BLOB_KEYS,
      files: objectStoreFiles,
      async open(
        { object_store_url, object_store_options, avg_chunk_size, zstd_level },
        { corrupt },
      ) {
        const { openObjectStore } = await import("../objectstore/open.ts");
        const { ObjectStoreBlobService } = await import(
          "../blobservice/objectstore/object-store-blob-service.ts"
        );
        await using opened = new AsyncDisposableStack();
        const store = opened.use(await openObjectStore(object_store_url, object_store_options));
        const service = new ObjectStoreBlobService({
          store,
          averageChunkSize: avg_chunk_size,
          zstdLevel: zstd_level,
          onCorrupt: corrupt,
        });
        opened.move(); // to the service
        return service;
      },
    }),
    combined: cacheType("blobservices", (options) => new CombinedBlobService(options)),
  },
  contract: "BlobService",
  calls: BLOB_SERVICE_PLAN,
  elsewhere: {
    redb: '"pack"',
    sled: '"pack"',
    simplefs: '"objectstore"',
    bigtable: '"objectstore"',
    cache: '"combined"',
  },
};

/** The types of directory services. */
export const DIRECTORY_SERVICES: ServiceRegistry<DirectoryService> = {
  kind: "directory service",
  types: {
    memory: memoryType(() => new MemoryDirectoryService()),
    sqlite: sqliteType((options) => SqliteDirectoryService.open(options)),
    grpc: grpcType(async (address, options) => {
      const { GrpcDirectoryService, openChannel } = await import("../grpc/client/index.ts");
      return new GrpcDirectoryService(openChannel(address, options));
    }),
    objectstore: serviceType({
      schemes: OBJECT_STORE_SCHEMES,
      config: (address) => objectStoreConfig(address, []),
      schema: async () => (await import("./keys.ts")).OBJECT_STORE_DIRECTORY_KEYS,
      files: objectStoreFiles,
      async open({ object_store_url, object_store_options }, { corrupt }) {
        const { openObjectStore } = await import("../objectstore/open.ts");
        const { ObjectStoreDirectoryService } = await import("../directoryservice/object-store.ts");
        const store = await openObjectStore(object_store_url, object_store_options);
        return new ObjectStoreDirectoryService({ store, onCorrupt: corrupt });
      },
    }),
    cache: cacheType("directoryservices", (options) => new CacheDirectoryService(options)),
  },
  contract: "DirectoryService",
  calls: DIRECTORY_SERVICE_PLAN,
  elsewhere: {
    redb: '"sqlite"',
    sled: '"sqlite"',
    bigtable: '"objectstore"',
    combined: '"cache"',
  },
};
