import type { BlobService } from "../blobservice/blob-service.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import { Composition, type CompositionOptions } from "./composition.ts";
import { BLOB_SERVICES, DIRECTORY_SERVICES } from "./registries.ts";
import type { Registries, ServiceKind, ServiceKinds } from "./registry.ts";

const REGISTRIES = { blobservices: BLOB_SERVICES, directoryservices: DIRECTORY_SERVICES };

/** Options of opening a service by its address. */
export interface OpenOptions extends AbortOptions, CompositionOptions {}

/**
 * Opens a blob service by its address:
 *
 * - `memory://`
 * - `pack:///folder`, optionally with `zstd_level`, `avg_chunk_size` and `max_pack_size` (bytes)
 * - `objectstore+memory:///`, `objectstore+file:///folder`, `objectstore+s3://bucket/prefix`,
 *   `objectstore+gs://bucket/prefix`, `objectstore+az://container/prefix`, and to read only
 *   `objectstore+http://host[:port]/path`, `objectstore+https://host[:port]/path`; optionally with `zstd_level`,
 *   `avg_chunk_size` and the options of the object store
 * - `grpc+http://host[:port]`, `grpc+https://host[:port]`, `grpc+unix:///socket`
 * - `combined://?near=ADDRESS&far=ADDRESS`, optionally with a `mode`
 *
 * @throws CastoreError `invalid_argument` for any other address; whatever opening the service throws
 */
export function openBlobService(address: string, options?: OpenOptions): Promise<BlobService> {
  return openAddress(REGISTRIES, "blobservices", address, options);
}

/**
 * Opens a directory service by its address:
 *
 * - `memory://`
 * - `sqlite:///file`, or `sqlite://` for a temporary one in memory
 * - `objectstore+...://...`, as for blobs, optionally with the options of the object store
 * - `grpc+http://host[:port]`, `grpc+https://host[:port]`, `grpc+unix:///socket`
 * - `cache://?near=ADDRESS&far=ADDRESS`, optionally with a `mode`
 *
 * @throws CastoreError `invalid_argument` for any other address; whatever opening the service throws
 */
export function openDirectoryService(
  address: string,
  options?: OpenOptions,
): Promise<DirectoryService> {
  return openAddress(REGISTRIES, "directoryservices", address, options);
}

/**
 * Opens the service of an address. Disposing of it also disposes of its dependencies.
 *
 * @throws CastoreError `invalid_argument` if there is no such service; the errors of opening it
 */
export async function openAddress<Kind extends ServiceKind>(
  registries: Registries,
  kind: Kind,
  address: string,
  options?: OpenOptions,
): Promise<ServiceKinds[Kind]> {
  await using stack = new AsyncDisposableStack();
  const named = { [kind]: { default: address } };
  const composition = stack.use(new Composition(registries, named, options));
  const service = await composition.service(kind, "default", options);
  stack.move();
  let closed: Promise<void> | undefined;
  const close = () => {
    closed ??= composition[Symbol.asyncDispose]();
    return closed;
  };
  return Object.defineProperty(service, Symbol.asyncDispose, {
    value: close,
    configurable: true,
    writable: true,
  });
}
