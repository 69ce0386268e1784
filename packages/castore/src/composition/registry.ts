import type { z } from "zod";
import { addressError, type ServiceAddress, showUnparsed } from "../address/service-address.ts";
import type { BlobService } from "../blobservice/blob-service.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import type { ContractPlan } from "./instrument.ts";

/**
 * The kinds of services that are composed, by the table of a TOML file that names them. A package that has
 * another kind adds it by declaration merging.
 */
export interface ServiceKinds {
  blobservices: BlobService;
  directoryservices: DirectoryService;
}

/** A kind of services. */
export type ServiceKind = keyof ServiceKinds;

/** What is at hand while a service is opened. */
export interface ServiceContext extends AbortOptions {
  /** What the service is called in messages: its name, or its address without the keys. */
  readonly name: string;

  /** Takes what the service tells of damage that it meets. The name is added. */
  readonly corrupt: (message: string) => void;

  /** Takes what the service tells of troubles that fail nobody's call. The name is added. */
  readonly warn: (message: string) => void;

  /**
   * A service that this one is made of, which stays open at least as long.
   *
   * @param reference a name, or the address of one that is nobody else's
   */
  service<Kind extends ServiceKind>(kind: Kind, reference: string): Promise<ServiceKinds[Kind]>;
}

/** How services of one type are described and opened. Made by {@link serviceType}. */
export interface ServiceType<T, Schema extends z.ZodType = z.ZodType, Config = never> {
  /** The schemes of addresses for it. Default: the name of the type alone. */
  readonly schemes?: readonly string[];

  /** Whether an address without keys says all that is needed, so that it need not be validated. */
  readonly plain?: boolean;

  /**
   * What an address says, as keys of the schema.
   *
   * @throws CastoreError `invalid_argument` for a host or path that cannot be used
   */
  config(address: ServiceAddress): Record<string, unknown>;

  /** The schema of the keys, for addresses and TOML alike. Loaded where it is needed. */
  schema(): Promise<Schema>;

  open(config: Config, context: ServiceContext): Promise<T>;
}

/** Ties the config that a type is opened with to its schema. */
export function serviceType<T, Schema extends z.ZodType>(
  type: ServiceType<T, Schema, z.output<Schema>>,
): ServiceType<T> {
  return type;
}

/** The types of one kind of service. A value: `{ ...registry, types: { ...registry.types, own } }` has more. */
export interface ServiceRegistry<T> {
  /** What the services are called in messages, such as "blob service". */
  readonly kind: string;
  /** By the name that a TOML file calls them. */
  readonly types: Readonly<Record<string, ServiceType<T>>>;
  /** The name of the contract in spans, such as `BlobService`. */
  readonly contract: string;
  /** How the calls of its methods are instrumented: errors and spans have the name of the store. */
  readonly calls: ContractPlan<T>;
  /** Types that other implementations have, and what takes their place here. */
  readonly elsewhere?: Readonly<Record<string, string>>;
}

/** The registries that a composition takes its types from. */
export type Registries = {
  readonly [Kind in ServiceKind]?: ServiceRegistry<ServiceKinds[Kind]>;
};

/**
 * The type that an address is for, and its name.
 *
 * @throws CastoreError `invalid_argument` if there is none
 */
export function typeOfAddress<T>(
  registry: ServiceRegistry<T>,
  address: ServiceAddress,
): readonly [name: string, type: ServiceType<T>] {
  const { scheme, shown } = address;
  const entries = Object.entries(registry.types);
  const found = entries.find(([name, { schemes = [name] }]) => schemes.includes(scheme));
  if (found !== undefined) return found;
  const schemes = entries.flatMap(([name, type]) => type.schemes ?? name);
  throw addressError(shown, unknownType(registry, "scheme", scheme, schemes));
}

/**
 * Refuses an address of a type that other implementations have, whose syntax is of no account.
 *
 * @throws CastoreError `invalid_argument`, which says what to use instead
 */
export function refuseElsewhere(registry: ServiceRegistry<unknown>, text: string): void {
  const [scheme = ""] = text.split(":", 1);
  if (!Object.hasOwn(registry.elsewhere ?? {}, scheme)) return;
  throw addressError(showUnparsed(text), unknownType(registry, "scheme", scheme, []));
}

/** What is wrong with a type, or a scheme, that is not in a registry. */
export function unknownType(
  { kind, elsewhere = {} }: ServiceRegistry<unknown>,
  what: "type" | "scheme",
  found: string,
  known: readonly string[],
): string {
  return Object.hasOwn(elsewhere, found)
    ? `${what} "${found}" is not offered, use ${elsewhere[found]}`
    : `expected the ${what} of a ${kind} (${known.join(", ")}), found "${found}"`;
}
