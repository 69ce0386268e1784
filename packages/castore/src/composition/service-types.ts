/** Service types that several kinds have. */

import { dirname } from "node:path";
import {
  addressError,
  expectNoHost,
  expectNoPath,
  expectPath,
  parseServiceAddress,
  type ServiceAddress,
  withKeys,
} from "../address/service-address.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { CacheOptions } from "../cache/origin-cache.ts";
import type { ChannelOptions } from "../grpc/transport/channel.ts";
import { type ServiceKind, type ServiceKinds, type ServiceType, serviceType } from "./registry.ts";

/** Returns the config of an address that consists of keys only. */
export function keysOnly(address: ServiceAddress): Record<string, unknown> {
  expectNoHost(address);
  expectNoPath(address);
  return { ...address.query };
}

/** `memory://` */
export function memoryType<T>(create: () => T): ServiceType<T> {
  return serviceType({
    plain: true,
    config: keysOnly,
    schema: async () => (await import("./keys.ts")).MEMORY_KEYS,
    open: async () => create(),
  });
}

/** Options of a service in a SQLite database. */
interface SqliteOptions extends AbortOptions {
  /** The database file, or `":memory:"` for a temporary one. */
  path: string;
  /** Called for each damaged row. */
  onCorrupt: (message: string) => void;
}

/** `sqlite:///file`, or `sqlite://` for a temporary one in memory. */
export function sqliteType<T>(open: (options: SqliteOptions) => Promise<T>): ServiceType<T> {
  return serviceType({
    plain: true,
    config(address) {
      const isInMemory = address.host === "" && address.path === "";
      return withKeys(address, isInMemory ? {} : { path: expectPath(address) });
    },
    schema: async () => (await import("./keys.ts")).SQLITE_KEYS,
    files: ({ path }) => (path === undefined ? [] : [dirname(path), path]),
    traces: ({ path }) => (path === undefined ? [] : [path]),
    open: ({ path = ":memory:" }, { signal, corrupt }) =>
      open({ path, onCorrupt: corrupt, signal }),
  });
}

/**
 * Describes `grpc+http://host[:port]`, `grpc+https://host[:port]` and `grpc+unix:///socket`.
 *
 * @param connect creates a client for an address, which has no keys. It connects later
 */
export function grpcType<T>(
  connect: (address: string, options: ChannelOptions) => Promise<T>,
): ServiceType<T> {
  const schemes = ["grpc+http", "grpc+https", "grpc+unix"];
  return serviceType({
    schemes,
    plain: true,
    config: (address) => withKeys(address, { url: address.text.split("?", 1)[0] }),
    schema: async () => (await import("./keys.ts")).GRPC_KEYS,
    async open({ url, keepalive_ms, timeout_ms, retry_ms, token_file, ...files }, { warn }) {
      const address = parseServiceAddress(url);
      if (!schemes.includes(address.scheme)) {
        throw addressError(address.shown, `expected one of ${schemes.join(", ")}`);
      }
      expectGrpc(address);
      return await connect(url, {
        keepAliveMs: keepalive_ms,
        timeoutMs: timeout_ms,
        retryMs: retry_ms,
        onWait: warn,
        tokenFile: token_file,
        tls: { ca: files.tls_ca, cert: files.tls_cert, key: files.tls_key },
      });
    },
  });
}

/** The schemes of addresses of object stores. */
export const OBJECT_STORE_SCHEMES: readonly string[] = [
  "memory",
  "file",
  "s3",
  "gs",
  "az",
  "http",
  "https",
].map((scheme) => `objectstore+${scheme}`);

/** Returns the config of `objectstore+...`: the keys of other names are options of the object store. */
export function objectStoreConfig(
  { text, query }: ServiceAddress,
  ownKeys: readonly string[],
): Record<string, unknown> {
  const [url] = text.slice("objectstore+".length).split("?", 1);
  const entries = Object.entries(query);
  const isOwn = ([key]: [string, string]) => ownKeys.includes(key);
  return {
    object_store_url: url,
    object_store_options: Object.fromEntries(entries.filter((entry) => !isOwn(entry))),
    ...Object.fromEntries(entries.filter(isOwn)),
  };
}

/** Returns the folder of an object store; none unless it is one of files. */
export function objectStoreFiles({ object_store_url }: { object_store_url: string }): string[] {
  const { scheme, path } = parseServiceAddress(object_store_url);
  return scheme === "file" ? [path] : [];
}

/**
 * `...://?near=REFERENCE&far=REFERENCE`, with further keys as {@link CacheOptions} has them.
 *
 * @param kind kind of the two stores
 */
export function cacheType<Kind extends ServiceKind>(
  kind: Kind,
  create: (options: CacheOptions<ServiceKinds[Kind]>) => ServiceKinds[Kind],
): ServiceType<ServiceKinds[Kind]> {
  return serviceType({
    config: keysOnly,
    references: { near: kind, far: kind, local: kind, remote: kind },
    schema: async () => (await import("./keys.ts")).CACHE_KEYS,
    async open({ near, far, ...keys }, { service, warn }) {
      return create({
        near: await service(kind, near, "cache"),
        far: await service(kind, far),
        mode: keys.mode,
        nearReadTimeoutMs: keys.near_read_timeout_ms,
        nearWriteTimeoutMs: keys.near_write_timeout_ms,
        onWarning: warn,
      });
    },
  });
}

function expectGrpc(address: ServiceAddress): void {
  const [key] = Object.keys(address.query);
  if (key !== undefined) throw addressError(address.shown, `expected no keys, found "${key}"`);
  if (address.scheme === "grpc+unix") {
    expectPath(address);
    return;
  }
  expectNoPath(address);
  if (address.host === "") throw addressError(address.shown, "expected a host, found none");
}
