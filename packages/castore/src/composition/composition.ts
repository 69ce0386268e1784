import type { z } from "zod";
import { CastoreError } from "../errors.ts";
import type { AbortOptions } from "../options.ts";
import {
  type Registries,
  type ServiceContext,
  type ServiceKind,
  type ServiceKinds,
  type ServiceRegistry,
  type ServiceType,
  typeOfAddress,
  unknownType,
} from "./registry.ts";
import { addressError, parseServiceAddress, type ServiceAddress } from "./service-address.ts";

/** How a service is described: by an address, or as a table of TOML with its type and keys. */
export type ServiceConfig =
  | string
  | ({ readonly type: string } & Readonly<Record<string, unknown>>);

/** The services that can be referred to by name. */
export type NamedServices = {
  readonly [Kind in ServiceKind]?: Readonly<Record<string, ServiceConfig>>;
};

/** The names that stand for what a command works on. */
const ENTRY_POINTS = ["default", "root"];

/** A service that is known how to open. */
interface Opener<T> {
  readonly name: string;
  /** Whether somebody chose the name, so that it helps to have it in errors. */
  readonly named: boolean;
  open(context: ServiceContext): Promise<T>;
}

/**
 * Services that are made of one another. Each is opened when it is first asked for: a named one once, however
 * many ask for it, also at the same time; one that is given by its address for each who asks.
 *
 * Disposing of it closes what it opened, each once, whatever is made of others before those.
 */
export class Composition implements AsyncDisposable {
  readonly #registries: Registries;
  readonly #named: NamedServices;
  readonly #opened = new Map<string, Promise<unknown>>();
  /** Which services wait for which, by key. */
  readonly #needs = new Map<string, Set<string>>();
  readonly #closing = new AsyncDisposableStack();
  #anonymous = 0;

  constructor(registries: Registries, named: NamedServices = {}) {
    this.#registries = registries;
    this.#named = named;
  }

  /**
   * Takes the services that a TOML file describes, each in a table `[KIND.NAME]` with its `type` and the keys
   * of that. Nothing is opened yet.
   *
   * @throws CastoreError `invalid_argument` for what is no TOML, and for a kind, a type, a key or a value that
   *   is not offered, naming it and what there is
   */
  static async parseToml(registries: Registries, text: string): Promise<Composition> {
    const { parseComposition } = await import("./toml.ts");
    const named = parseComposition(text, Object.keys(registries));
    const composition = new Composition(registries, named);
    for (const kind of Object.keys(named) as ServiceKind[]) {
      for (const name of Object.keys(named[kind] ?? {})) await composition.#opener(kind, name);
    }
    return composition;
  }

  /**
   * Opens a service, or gives the one that is open.
   *
   * @param reference a name, or an address. Default: `default`, or `root` if there is no such name
   * @throws CastoreError `invalid_argument` for an unknown name, type or key, or services that are made of
   *   themselves; whatever opening throws
   */
  service<Kind extends ServiceKind>(
    kind: Kind,
    reference?: string,
    options?: AbortOptions,
  ): Promise<ServiceKinds[Kind]> {
    return this.#service(kind, reference ?? this.#entryPoint(kind), undefined, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#opened.values());
    await this.#closing.disposeAsync();
  }

  #entryPoint(kind: ServiceKind): string {
    return ENTRY_POINTS.find((name) => this.#config(kind, name) !== undefined) ?? "default";
  }

  #config(kind: ServiceKind, name: string): ServiceConfig | undefined {
    const named = this.#named[kind] ?? {};
    return Object.hasOwn(named, name) ? named[name] : undefined;
  }

  async #service<Kind extends ServiceKind>(
    kind: Kind,
    reference: string,
    parent: string | undefined,
    options?: AbortOptions,
  ): Promise<ServiceKinds[Kind]> {
    options?.signal?.throwIfAborted();
    const key = reference.includes("://")
      ? `${kind}#${this.#anonymous++}`
      : `[${kind}.${reference}]`;
    if (parent !== undefined) this.#addNeed(parent, key);
    let opened = this.#opened.get(key) as Promise<ServiceKinds[Kind]> | undefined;
    if (opened === undefined) {
      opened = this.#open(kind, reference, key, options);
      this.#opened.set(key, opened);
      // Whoever asks again may have better luck.
      opened.catch(() => this.#opened.delete(key));
    }
    return await opened;
  }

  async #open<Kind extends ServiceKind>(
    kind: Kind,
    reference: string,
    key: string,
    options?: AbortOptions,
  ): Promise<ServiceKinds[Kind]> {
    const opener = await this.#opener(kind, reference);
    try {
      const service = await opener.open({
        name: opener.name,
        signal: options?.signal,
        service: (kind, reference) => this.#service(kind, reference, key, options),
      });
      const close = service[Symbol.asyncDispose].bind(service);
      this.#closing.defer(close);
      return service;
    } catch (error) {
      if (!opener.named || !(error instanceof CastoreError)) throw error;
      const message = `Cannot open ${key}: ${error.message}`;
      throw new CastoreError(error.code, message, { cause: error });
    } finally {
      this.#needs.delete(key);
    }
  }

  /** @throws CastoreError `invalid_argument` if the one would wait for itself then */
  #addNeed(key: string, needed: string): void {
    const path = this.#pathOfNeeds(needed, key);
    if (path !== undefined) {
      const cycle = [key, ...path].join(" -> ");
      throw new CastoreError("invalid_argument", `Cannot compose ${cycle}: this is a cycle`);
    }
    const needs = this.#needs.get(key) ?? new Set();
    this.#needs.set(key, needs.add(needed));
  }

  /** The services over which one waits for another, both included; `undefined` if it does not. */
  #pathOfNeeds(from: string, to: string): string[] | undefined {
    if (from === to) return [to];
    for (const next of this.#needs.get(from) ?? []) {
      const path = this.#pathOfNeeds(next, to);
      if (path !== undefined) return [from, ...path];
    }
    return undefined;
  }

  async #opener<Kind extends ServiceKind>(
    kind: Kind,
    reference: string,
  ): Promise<Opener<ServiceKinds[Kind]>> {
    const registry = this.#registries[kind] as ServiceRegistry<ServiceKinds[Kind]> | undefined;
    if (registry === undefined) {
      const known = Object.keys(this.#registries).join(", ");
      throw new CastoreError("invalid_argument", `Cannot use "${kind}": expected ${known}`);
    }
    if (reference.includes("://")) return await addressOpener(registry, reference);
    const config = this.#config(kind, reference);
    if (config === undefined) {
      const names = Object.keys(this.#named[kind] ?? {}).join(", ") || "none";
      throw new CastoreError(
        "invalid_argument",
        `Cannot use [${kind}.${reference}]: there is no such ${registry.kind}, only ${names}`,
      );
    }
    if (typeof config === "string") return await addressOpener(registry, config);
    return await tableOpener(registry, `[${kind}.${reference}]`, reference, config);
  }
}

/** What opens the service of an address. */
async function addressOpener<T>(registry: ServiceRegistry<T>, text: string): Promise<Opener<T>> {
  const address = parseServiceAddress(text);
  const [, type] = typeOfAddress(registry, address);
  const config = await addressConfig(type, address);
  return {
    name: address.shown,
    named: false,
    open: async (context) => await type.open(config as never, context),
  };
}

async function addressConfig<T>(type: ServiceType<T>, address: ServiceAddress): Promise<unknown> {
  const config = type.config(address);
  if (type.plain && Object.keys(address.query).length === 0) return config;
  return validate(await type.schema(), config, (reason) => addressError(address.shown, reason));
}

/** What opens the service that a table describes. */
async function tableOpener<T>(
  registry: ServiceRegistry<T>,
  key: string,
  name: string,
  { type: typeName, ...keys }: Exclude<ServiceConfig, string>,
): Promise<Opener<T>> {
  const refuse = (reason: string) =>
    new CastoreError("invalid_argument", `Cannot use ${key}: ${reason}`);
  if (!Object.hasOwn(registry.types, typeName)) {
    throw refuse(unknownType(registry, "type", typeName, Object.keys(registry.types)));
  }
  const type = registry.types[typeName]!;
  const config = validate(await type.schema(), keys, refuse);
  return { name, named: true, open: async (context) => await type.open(config as never, context) };
}

/** Keys by a schema, which is strict: unknown keys are refused. */
function validate(
  schema: z.ZodType,
  keys: unknown,
  refuse: (reason: string) => CastoreError,
): unknown {
  const result = schema.safeParse(keys);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const key = issue?.path.join(".");
  throw refuse(`${key ? `key "${key}": ` : ""}${issue?.message}`);
}
