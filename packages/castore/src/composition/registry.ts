import type { z } from "zod";
import { suggestAddress } from "../address/meant-address.ts";
import { addressError, type ServiceAddress, showUnparsed } from "../address/service-address.ts";
import type { BlobService } from "../blobservice/blob-service.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import { MAX_LISTED, nearestOf } from "../model/nearest.ts";
import type { ContractPlan } from "./instrument.ts";

/**
 * Kinds of services in a composition, by the name of their TOML table. Another package adds its kinds by declaration
 * merging.
 */
export interface ServiceKinds {
  blobservices: BlobService;
  directoryservices: DirectoryService;
}

/** A kind of services. */
export type ServiceKind = keyof ServiceKinds;

/**
 * What a service is for:
 *
 * - `store`: it holds what callers read and write
 * - `cache`: it holds copies, and calls succeed although it cannot be written
 * - `filled`: it is written to also where callers only read
 */
export type ServiceRole = "store" | "cache" | "filled";

/** Context of opening a service. */
export interface ServiceContext extends AbortOptions {
  /** Name of the service in messages: its name, or its address without the keys. */
  readonly name: string;

  /** Reports damage in the service; the name is added. */
  readonly corrupt: (message: string) => void;

  /** Reports a failure that fails no call; the name is added. */
  readonly warn: (message: string) => void;

  /**
   * Opens a dependency of this service, which stays open at least as long.
   *
   * @param reference a name, or the address of a service that is not shared
   * @param role what it is for. Default: `store`
   */
  service<Kind extends ServiceKind>(
    kind: Kind,
    reference: string,
    role?: ServiceRole,
  ): Promise<ServiceKinds[Kind]>;
}

/** A type of service: its addresses, its keys, and how to open it. Created by {@link serviceType}. */
export interface ServiceType<T, Schema extends z.ZodType = z.ZodType, Config = never> {
  /** Schemes of its addresses. Default: the name of the type. */
  readonly schemes?: readonly string[];

  /** Whether an address without keys is complete, so that its keys need no validation. */
  readonly plain?: boolean;

  /**
   * Converts an address to keys of the schema.
   *
   * @throws CastoreError `invalid_argument` for a host or path that cannot be used
   */
  config(address: ServiceAddress): Record<string, unknown>;

  /** Keys whose values are references to other services, of which a kind is named. Default: none. */
  readonly references?: Readonly<Record<string, ServiceKind>>;

  /** Returns the files and folders that it writes to, which need not exist. Default: none. */
  files?(config: Config): readonly string[];

  /**
   * Returns paths of which at least one exists once the store was created. Default: none, as for a store that is not in the
   * file system.
   */
  traces?(config: Config): readonly string[];

  /** Loads the schema of the keys, for addresses and TOML. */
  schema(): Promise<Schema>;

  open(config: Config, context: ServiceContext): Promise<T>;
}

/** Defines a type of service, whose config has the type of its schema. */
export function serviceType<T, Schema extends z.ZodType>(
  type: ServiceType<T, Schema, z.output<Schema>>,
): ServiceType<T> {
  return type;
}

/** The types of one kind of service. A value: `{ ...registry, types: { ...registry.types, own } }` has more. */
export interface ServiceRegistry<T> {
  /** Name of the kind in messages, such as "blob service". */
  readonly kind: string;
  /** Types by their name in TOML. */
  readonly types: Readonly<Record<string, ServiceType<T>>>;
  /** The name of the contract in spans, such as `BlobService`. */
  readonly contract: string;
  /** Instrumentation of its methods: errors and spans have the name of the store. */
  readonly calls: ContractPlan<T>;
  /** Types of other implementations, with their replacement here. */
  readonly elsewhere?: Readonly<Record<string, string>>;
}

/** The registries that a composition takes its types from. */
export type Registries = {
  readonly [Kind in ServiceKind]?: ServiceRegistry<ServiceKinds[Kind]>;
};

/**
 * Returns the type of an address, and its name.
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
  const schemes = schemesOf(registry);
  const meant = suggestAddress(shown, schemes);
  const listed = meant === "" || schemes.length <= MAX_LISTED ? schemes : [];
  throw addressError(shown, unknownType(registry, "scheme", scheme, listed) + meant);
}

/** Returns the schemes of the addresses of all types. */
export function schemesOf({ types }: ServiceRegistry<unknown>): string[] {
  return Object.entries(types).flatMap(([name, type]) => type.schemes ?? name);
}

/**
 * Refuses an address of a type that only other implementations have, whatever its syntax.
 *
 * @throws CastoreError `invalid_argument`, naming the replacement
 */
export function refuseElsewhere(registry: ServiceRegistry<unknown>, text: string): void {
  const [scheme = ""] = text.split(":", 1);
  if (!Object.hasOwn(registry.elsewhere ?? {}, scheme)) return;
  throw addressError(showUnparsed(text), unknownType(registry, "scheme", scheme, []));
}

/** Returns the reason for refusing a type or scheme that is not in a registry. */
export function unknownType(
  { kind, elsewhere = {} }: ServiceRegistry<unknown>,
  what: "type" | "scheme",
  found: string,
  known: readonly string[],
): string {
  if (Object.hasOwn(elsewhere, found)) {
    return `${what} "${found}" is not offered, use ${elsewhere[found]}`;
  }
  const nearest = what === "type" ? nearestOf(found, known) : undefined;
  const guess = nearest === undefined ? "" : `; did you mean "${nearest}"?`;
  const list = known.length > 0 ? ` (${known.join(", ")})` : "";
  return `expected the ${what} of a ${kind}${list}, found "${found}"${guess}`;
}
