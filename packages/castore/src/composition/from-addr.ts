import type { BlobService } from "../blobservice/blob-service.ts";
import { MemoryBlobService } from "../blobservice/memory.ts";
import { PackBlobService, type PackOptions } from "../blobservice/pack.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import { MemoryDirectoryService } from "../directoryservice/memory.ts";
import { SqliteDirectoryService } from "../directoryservice/sqlite.ts";
import type { AbortOptions } from "../options.ts";
import { openFromRegistry, type ServiceRegistry } from "./registry.ts";
import {
  addressError,
  expectNoHost,
  expectNoKeys,
  expectNoPath,
  expectPath,
  parseQuery,
  type ServiceAddress,
} from "./service-address.ts";

/**
 * Opens a blob service by its address:
 *
 * - `memory://`
 * - `pack:///folder`, optionally with `zstd_level`, `avg_chunk_size` and `max_pack_size` (bytes)
 * - `grpc+http://host[:port]`, `grpc+https://host[:port]`, `grpc+unix:///socket`
 *
 * @throws CastoreError `invalid_argument` for any other address; whatever opening the service throws
 */
export function openBlobService(address: string, options?: AbortOptions): Promise<BlobService> {
  return openFromRegistry(BLOB_SERVICES, address, options);
}

/**
 * Opens a directory service by its address:
 *
 * - `memory://`
 * - `sqlite:///file`, or `sqlite://` for a temporary one in memory
 * - `grpc+http://host[:port]`, `grpc+https://host[:port]`, `grpc+unix:///socket`
 *
 * @throws CastoreError `invalid_argument` for any other address; whatever opening the service throws
 */
export function openDirectoryService(
  address: string,
  options?: AbortOptions,
): Promise<DirectoryService> {
  return openFromRegistry(DIRECTORY_SERVICES, address, options);
}

// What most commands have no use for, and takes long to load, is imported where it is needed.

const BLOB_SERVICES: ServiceRegistry<BlobService> = {
  kind: "blob service",
  openers: {
    memory: async (address) => {
      expectBare(address);
      return new MemoryBlobService();
    },
    pack: async (address, options) => {
      const path = expectPath(address);
      const keys = await packKeys(address);
      return await PackBlobService.open({ path, ...keys, ...options });
    },
    ...grpcOpeners(async (address) => {
      const { GrpcBlobService, openChannel } = await import("../grpc/index.ts");
      return new GrpcBlobService(openChannel(address));
    }),
  },
};

const DIRECTORY_SERVICES: ServiceRegistry<DirectoryService> = {
  kind: "directory service",
  openers: {
    memory: async (address) => {
      expectBare(address);
      return new MemoryDirectoryService();
    },
    sqlite: async (address, options) =>
      await SqliteDirectoryService.open({ path: sqlitePath(address), ...options }),
    ...grpcOpeners(async (address) => {
      const { GrpcDirectoryService, openChannel } = await import("../grpc/index.ts");
      return new GrpcDirectoryService(openChannel(address));
    }),
  },
};

async function packKeys(address: ServiceAddress): Promise<Partial<PackOptions>> {
  if (Object.keys(address.query).length === 0) return {};
  const { PACK_KEYS } = await import("./keys.ts");
  const keys = parseQuery(address, PACK_KEYS);
  return {
    zstdLevel: keys.zstd_level,
    averageChunkSize: keys.avg_chunk_size,
    maxPackSize: keys.max_pack_size,
  };
}

/** Refuses anything after `scheme://`. */
export function expectBare(address: ServiceAddress): void {
  expectNoHost(address);
  expectNoPath(address);
  expectNoKeys(address);
}

/** The file of a `sqlite:` address; `":memory:"` for `sqlite://` alone. */
export function sqlitePath(address: ServiceAddress): string {
  expectNoKeys(address);
  expectNoHost(address);
  return address.path === "" ? ":memory:" : expectPath(address);
}

/** The three gRPC schemes for a client that is made of an address. Nothing is connected yet. */
export function grpcOpeners<T>(
  connect: (address: string) => Promise<T>,
): Record<string, (address: ServiceAddress) => Promise<T>> {
  const overTcp = async (address: ServiceAddress) => {
    expectNoKeys(address);
    expectNoPath(address);
    if (address.host === "") throw addressError(address.text, "expected a host, found none");
    return await connect(address.text);
  };
  const overUnix = async (address: ServiceAddress) => {
    expectNoKeys(address);
    expectPath(address);
    return await connect(address.text);
  };
  return { "grpc+http": overTcp, "grpc+https": overTcp, "grpc+unix": overUnix };
}
