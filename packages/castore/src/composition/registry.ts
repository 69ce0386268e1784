import type { AbortOptions } from "../options.ts";
import { addressError, parseServiceAddress, type ServiceAddress } from "./service-address.ts";

/** Opens a service at an address whose scheme is already known to fit. */
export type ServiceOpener<T> = (address: ServiceAddress, options?: AbortOptions) => Promise<T>;

/** The implementations of one kind of service, by the scheme of their addresses. */
export interface ServiceRegistry<T> {
  /** What the services are called in messages, such as "blob service". */
  readonly kind: string;
  readonly openers: Readonly<Record<string, ServiceOpener<T>>>;
}

/** Schemes of other implementations of these services, and what takes their place here. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  redb: '"pack:///path" for blobs, "sqlite:///path" for directories and path infos',
  sled: '"pack:///path" for blobs, "sqlite:///path" for directories and path infos',
};

/**
 * Opens the service that an address names.
 *
 * @throws CastoreError `invalid_argument` for an address that is not valid or whose scheme is not in
 *   the registry; whatever opening the service throws
 */
export async function openFromRegistry<T>(
  registry: ServiceRegistry<T>,
  text: string,
  options?: AbortOptions,
): Promise<T> {
  options?.signal?.throwIfAborted();
  const address = parseServiceAddress(text);
  const open = Object.hasOwn(registry.openers, address.scheme)
    ? registry.openers[address.scheme]
    : undefined;
  if (open !== undefined) return await open(address, options);
  const instead = Object.hasOwn(ELSEWHERE, address.scheme)
    ? `scheme "${address.scheme}" is not offered, use ${ELSEWHERE[address.scheme]}`
    : `expected the scheme of a ${registry.kind} (${Object.keys(registry.openers).join(", ")}), ` +
      `found "${address.scheme}"`;
  throw addressError(text, instead);
}
