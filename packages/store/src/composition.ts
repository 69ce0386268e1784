import {
  BLOB_SERVICES,
  cacheType,
  DIRECTORY_SERVICES,
  grpcType,
  keysOnly,
  type Measure,
  memoryType,
  type OpenOptions,
  openAddress,
  type Registries,
  type ServiceAddress,
  type ServiceRegistry,
  serviceType,
  sqliteType,
  withKeys,
} from "@tvix/castore";
import { encodeNixbase32 } from "./nix/nixbase32.ts";
import { splitKeys, VerifyingKey } from "./nix/signature.ts";
import { CachePathInfoService } from "./pathinfoservice/cache.ts";
import { LruPathInfoService, MemoryPathInfoService } from "./pathinfoservice/memory.ts";
import type { PathInfoPage } from "./pathinfoservice/path-info-page.ts";
import type { PathInfoService } from "./pathinfoservice/path-info-service.ts";
import { readSigningKey, SigningPathInfoService } from "./pathinfoservice/signing.ts";
import { SqlitePathInfoService } from "./pathinfoservice/sqlite.ts";

declare module "@tvix/castore" {
  interface ServiceKinds {
    pathinfoservices: PathInfoService;
  }
}

/** The pages of a listing are measured by the PathInfos in them. */
const PAGES: Measure<PathInfoPage> = { attribute: "tvix.count", of: ({ length }) => length };
const hashPartOf = (hashPart: Uint8Array) => ({ "tvix.hash_part": encodeNixbase32(hashPart) });

/** The types of PathInfo services, by name. */
export const PATH_INFO_SERVICES: ServiceRegistry<PathInfoService> = {
  kind: "PathInfo service",
  types: {
    memory: memoryType(() => new MemoryPathInfoService()),
    sqlite: sqliteType((options) => SqlitePathInfoService.open(options)),
    grpc: grpcType(async (address, options) => {
      const { openChannel } = await import("@tvix/castore/grpc");
      const { GrpcPathInfoService } = await import("./grpc.ts");
      return new GrpcPathInfoService(openChannel(address, options));
    }),
    cache: cacheType("pathinfoservices", (options) => new CachePathInfoService(options)),
    lru: serviceType({
      config: keysOnly,
      schema: async () => (await import("./keys.ts")).LRU_KEYS,
      open: async ({ capacity }) => new LruPathInfoService({ capacity }),
    }),
    nix: serviceType({
      schemes: ["nix+http", "nix+https"],
      config: binaryCacheConfig,
      schema: async () => (await import("./keys.ts")).NIX_KEYS,
      async open(config, { service }) {
        const { NixHttpPathInfoService } = await import("./pathinfoservice/nix-http.ts");
        return new NixHttpPathInfoService({
          baseUrl: config.base_url,
          blobService: await service("blobservices", config.blob_service, "filled"),
          directoryService: await service("directoryservices", config.directory_service, "filled"),
          publicKeys: config.public_keys?.map((key) => VerifyingKey.parse(key)),
          timeoutMs: config.timeout_ms,
          tokenFile: config.token_file,
        });
      },
    }),
    "keyfile-signing": serviceType({
      config: keysOnly,
      schema: async () => (await import("./keys.ts")).KEYFILE_SIGNING_KEYS,
      async open({ inner, keyfile }, { service }) {
        const key = await readSigningKey(keyfile);
        return new SigningPathInfoService({ inner: await service("pathinfoservices", inner), key });
      },
    }),
  },
  contract: "PathInfoService",
  calls: {
    get: { about: hashPartOf },
    getMany: { about: ({ length }) => ({ "tvix.count": length }) },
    put: { about: ({ storePath }) => hashPartOf(storePath.hashPart) },
    list: { returns: "stream" },
    listPages: { returns: "stream", measure: PAGES },
  },
  elsewhere: { redb: '"sqlite"', sled: '"sqlite"', bigtable: '"sqlite"', combined: '"cache"' },
};

/** Returns the config of `nix+http` addresses, in which the trusted keys are one value, separated by spaces. */
function binaryCacheConfig(address: ServiceAddress): Record<string, unknown> {
  const [url] = address.text.slice("nix+".length).split("?", 1);
  const { "trusted-public-keys": keys, ...query } = address.query;
  return withKeys(
    { ...address, query },
    { base_url: url, public_keys: keys === undefined ? undefined : splitKeys(keys) },
  );
}

/** The types of all services of a store, by kind. */
export const STORE_REGISTRIES: Required<Registries> = {
  blobservices: BLOB_SERVICES,
  directoryservices: DIRECTORY_SERVICES,
  pathinfoservices: PATH_INFO_SERVICES,
};

/**
 * Opens a PathInfo service by its address:
 *
 * - `memory://`
 * - `sqlite:///file`, or `sqlite://` for a temporary one in memory
 * - `grpc+http://host[:port]`, `grpc+https://host[:port]`, `grpc+unix:///socket`
 * - `nix+http://host[:port]/path`, `nix+https://host[:port]/path`, a binary cache, with where contents go as keys
 *   `blob_service` and `directory_service`, and optionally `trusted-public-keys`, `timeout_ms` and `token_file`
 * - `cache://?near=ADDRESS&far=ADDRESS`, optionally with a `mode`
 * - `lru://?capacity=COUNT`
 * - `keyfile-signing://?inner=ADDRESS&keyfile=PATH`
 *
 * @throws CastoreError `invalid_argument` for any other address; whatever opening the service throws
 */
export function openPathInfoService(
  address: string,
  options?: OpenOptions,
): Promise<PathInfoService> {
  return openAddress(STORE_REGISTRIES, "pathinfoservices", address, options);
}
