import { z } from "zod";
import type { BlobService } from "../blobservice/blob-service.ts";
import { GrpcBlobService } from "../blobservice/grpc.ts";
import { MemoryBlobService } from "../blobservice/memory.ts";
import { PackBlobService } from "../blobservice/pack.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import { GrpcDirectoryService } from "../directoryservice/grpc.ts";
import { MemoryDirectoryService } from "../directoryservice/memory.ts";
import { SqliteDirectoryService } from "../directoryservice/sqlite.ts";
import { openChannel } from "../grpc/channel.ts";
import type { AbortOptions } from "../options.ts";
import { openFromRegistry, type ServiceRegistry } from "./registry.ts";
import {
  addressError,
  expectNoHost,
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

const NO_KEYS = z.strictObject({});

const PACK_KEYS = z.strictObject({
  zstd_level: z.coerce.number().int().min(1).max(22).optional(),
  avg_chunk_size: z.coerce.number().int().optional(),
  max_pack_size: z.coerce.number().int().min(1).optional(),
});

const BLOB_SERVICES: ServiceRegistry<BlobService> = {
  kind: "blob service",
  openers: {
    memory: async (address) => {
      expectBare(address);
      return new MemoryBlobService();
    },
    pack: async (address, options) => {
      const keys = parseQuery(address, PACK_KEYS);
      return await PackBlobService.open({
        path: expectPath(address),
        zstdLevel: keys.zstd_level,
        averageChunkSize: keys.avg_chunk_size,
        maxPackSize: keys.max_pack_size,
        ...options,
      });
    },
    ...grpcOpeners((address) => new GrpcBlobService(openChannel(address))),
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
    ...grpcOpeners((address) => new GrpcDirectoryService(openChannel(address))),
  },
};

/** Refuses anything after `scheme://`. */
export function expectBare(address: ServiceAddress): void {
  expectNoHost(address);
  expectNoPath(address);
  parseQuery(address, NO_KEYS);
}

/** The file of a `sqlite:` address; `":memory:"` for `sqlite://` alone. */
export function sqlitePath(address: ServiceAddress): string {
  parseQuery(address, NO_KEYS);
  expectNoHost(address);
  return address.path === "" ? ":memory:" : expectPath(address);
}

/** The three gRPC schemes for a client that is made of an address. Nothing is connected yet. */
export function grpcOpeners<T>(
  connect: (address: string) => T,
): Record<string, (address: ServiceAddress) => Promise<T>> {
  const overTcp = async (address: ServiceAddress) => {
    parseQuery(address, NO_KEYS);
    expectNoPath(address);
    if (address.host === "") throw addressError(address.text, "expected a host, found none");
    return connect(address.text);
  };
  const overUnix = async (address: ServiceAddress) => {
    parseQuery(address, NO_KEYS);
    expectPath(address);
    return connect(address.text);
  };
  return { "grpc+http": overTcp, "grpc+https": overTcp, "grpc+unix": overUnix };
}
