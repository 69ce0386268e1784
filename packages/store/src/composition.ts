import {
  type AbortOptions,
  expectBare,
  grpcOpeners,
  openFromRegistry,
  type ServiceRegistry,
  sqlitePath,
} from "@tvix/castore";
import { MemoryPathInfoService } from "./pathinfoservice/memory.ts";
import type { PathInfoService } from "./pathinfoservice/path-info-service.ts";
import { SqlitePathInfoService } from "./pathinfoservice/sqlite.ts";

/**
 * Opens a PathInfo service by its address:
 *
 * - `memory://`
 * - `sqlite:///file`, or `sqlite://` for a temporary one in memory
 * - `grpc+http://host[:port]`, `grpc+https://host[:port]`, `grpc+unix:///socket`
 *
 * @throws CastoreError `invalid_argument` for any other address; whatever opening the service throws
 */
export function openPathInfoService(
  address: string,
  options?: AbortOptions,
): Promise<PathInfoService> {
  return openFromRegistry(PATH_INFO_SERVICES, address, options);
}

const PATH_INFO_SERVICES: ServiceRegistry<PathInfoService> = {
  kind: "PathInfo service",
  openers: {
    memory: async (address) => {
      expectBare(address);
      return new MemoryPathInfoService();
    },
    sqlite: async (address, options) =>
      await SqlitePathInfoService.open({ path: sqlitePath(address), ...options }),
    ...grpcOpeners(async (address) => {
      const { openChannel } = await import("@tvix/castore/grpc");
      const { GrpcPathInfoService } = await import("./grpc.ts");
      return new GrpcPathInfoService(openChannel(address));
    }),
  },
};
