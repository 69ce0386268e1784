import type { z } from "zod";
import { refusalOf, type SchemaRefusal } from "../address/schema-refusal.ts";
import { addressError, parseServiceAddress } from "../address/service-address.ts";
import { CastoreError } from "../model/errors.ts";
import {
  refuseElsewhere,
  type ServiceContext,
  type ServiceKind,
  type ServiceRegistry,
  type ServiceType,
  schemesOf,
  typeOfAddress,
  unknownType,
} from "./registry.ts";

/** Description of a service: an address, or a table of TOML with its type and keys. */
export type ServiceConfig =
  | string
  | ({ readonly type: string } & Readonly<Record<string, unknown>>);

/** The services that can be referred to by name. */
export type NamedServices = {
  readonly [Kind in ServiceKind]?: Readonly<Record<string, ServiceConfig>>;
};

/** Returns the error for what is wrong in a table or an address. */
export type Refuse = (refusal: SchemaRefusal) => CastoreError | Promise<CastoreError>;

/** Opens one service. */
export interface Opener<T> {
  /** Name of the service, or its address without the keys. */
  readonly name: string;
  /** Whether the name comes from a TOML file, so that errors show it. */
  readonly named: boolean;
  /** Returns the files and folders that it writes to. */
  files(): readonly string[];
  /** Returns paths of which at least one exists once the store was created; none for one that is not in the file system. */
  traces(): readonly string[];
  open(context: ServiceContext): Promise<T>;
}

/**
 * Returns the opener for an address.
 *
 * @throws CastoreError `invalid_argument` for an unknown type or key, or a wrong value
 */
export async function addressOpener<T>(
  registry: ServiceRegistry<T>,
  text: string,
): Promise<Opener<T>> {
  refuseElsewhere(registry, text);
  const address = parseServiceAddress(text, schemesOf(registry));
  const { shown } = address;
  const [, type] = typeOfAddress(registry, address);
  const keys = type.config(address);
  const isPlain = type.plain && Object.keys(address.query).length === 0;
  const hidden = Object.keys(keys).filter((key) => !Object.hasOwn(address.query, key));
  const refuse = ({ reason }: SchemaRefusal) => addressError(shown, reason);
  const config = isPlain ? keys : await validate(type, keys, refuse, hidden);
  return { name: shown, named: false, ...prepare(type, config) };
}

/**
 * Returns the opener for a table.
 *
 * @param label the table, for messages
 * @param refuse returns the error for what is wrong in the table. Default: one that names the table
 * @throws CastoreError `invalid_argument` for an unknown type or key, or a wrong value
 */
export async function tableOpener<T>(
  registry: ServiceRegistry<T>,
  label: string,
  name: string,
  { type: typeName, ...keys }: Exclude<ServiceConfig, string>,
  refuse: Refuse = ({ reason }) =>
    new CastoreError("invalid_argument", `Cannot use ${label}: ${reason}`),
): Promise<Opener<T>> {
  if (!Object.hasOwn(registry.types, typeName)) {
    const reason = unknownType(registry, "type", typeName, Object.keys(registry.types));
    throw await refuse({ path: ["type"], reason });
  }
  const type = registry.types[typeName]!;
  const config = await validate(type, keys, refuse);
  return { name, named: true, ...prepare(type, config) };
}

function prepare<T>(type: ServiceType<T>, config: unknown): Omit<Opener<T>, "name" | "named"> {
  return {
    files: () => type.files?.(config as never) ?? [],
    traces: () => type.traces?.(config as never) ?? [],
    open: (context) => type.open(config as never, context),
  };
}

/** Parses keys by a strict schema: unknown keys are refused. */
async function validate(
  type: ServiceType<unknown>,
  keys: unknown,
  refuse: Refuse,
  hidden?: readonly string[],
): Promise<unknown> {
  const schema: z.ZodType = await type.schema();
  const result = schema.safeParse(keys);
  if (result.success) return result.data;
  throw await refuse(refusalOf(result.error, schema, keys, hidden));
}
