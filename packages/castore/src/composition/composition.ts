import { existsSync } from "node:fs";
import { showUnparsed } from "../address/service-address.ts";
import { unlessAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { whyReadOnly } from "../disk/read-only.ts";
import { CastoreError, hasCode, nameStore } from "../model/errors.ts";
import { nearestOf } from "../model/nearest.ts";
import { type StoreStatistics, statisticsOf } from "../model/statistics.ts";
import { instrument } from "./instrument.ts";
import {
  addressOpener,
  type NamedServices,
  type Opener,
  type Refuse,
  type ServiceConfig,
  tableOpener,
} from "./opener.ts";
import type {
  Registries,
  ServiceKind,
  ServiceKinds,
  ServiceRegistry,
  ServiceRole,
} from "./registry.ts";

/** An event of a store that fails no call. */
export interface StoreEvent {
  /**
   * - `corrupt`: stored bytes are damaged. They count as absent, and storing them again heals
   * - `warning`: an optional step failed, such as a write to the local store of a cache
   * - `read-only`: it was opened, and cannot be written
   */
  readonly type: "corrupt" | "warning" | "read-only";
  /** The kind of the store. */
  readonly kind: ServiceKind;
  /** The name of the store, or its address without the keys. */
  readonly store: string;
  /** The event, without the name of the store. */
  readonly message: string;
}

/** Statistics of one store of a composition. */
export interface NamedStatistics extends StoreStatistics {
  readonly kind: ServiceKind;
  /** The name of the store, or its address without the keys. */
  readonly store: string;
}

/** Options of a {@link Composition}. */
export interface CompositionOptions {
  /** Called for each event of a store. Default: a process warning, but of those that can only be read. */
  onEvent?: ((event: StoreEvent) => void) | undefined;
  /**
   * Whether a store that does not exist is created when it is opened; otherwise, opening it fails with `not_found`. Caches, and
   * stores that a binary cache fills, are created in either case. Default: true.
   */
  create?: boolean | undefined;
}

/** Options of {@link Composition.parseToml}. */
export interface ParseTomlOptions extends CompositionOptions {
  /** What the file is, for messages, such as `store composition "stores.toml"`. Default: `store composition`. */
  name?: string | undefined;
  /** Names of tables that the caller reads, and that describe no service. Default: none. */
  otherTables?: readonly string[] | undefined;
}

/** Default names of services. */
const ENTRY_POINTS = ["default", "root"];

/** A requested service. */
interface Wanted {
  /** Its key: all references to a name share a service, each address has one of its own. */
  readonly key: string;
  /** Its name in messages. */
  readonly label: string;
  readonly named: boolean;
}

/**
 * Services that depend on one another. Each is opened on first use: a named service once, also for concurrent callers;
 * a service given by its address once for each caller.
 *
 * Disposing closes each opened service once, dependents before their dependencies.
 */
export class Composition implements AsyncDisposable {
  readonly #registries: Registries;
  readonly #named: NamedServices;
  /** What describes the services, for messages. */
  #name = "composition";
  readonly #onEvent: (event: StoreEvent) => void;
  readonly #create: boolean;
  readonly #opened = new Map<string, Promise<unknown>>();
  /** Services being opened, with the ones that they wait for, by key. */
  readonly #needs = new Map<string, Set<Wanted>>();
  /** The services that are open, without their instrumentation. */
  readonly #stores: { readonly kind: ServiceKind; readonly store: string; service: object }[] = [];
  readonly #closing = new AsyncDisposableStack();
  /** Aborted when the composition is disposed of: cancels opening, and refuses further calls. */
  readonly #abandon = new AbortController();
  #closed: Promise<void> | undefined;
  #anonymous = 0;

  constructor(
    registries: Registries,
    named: NamedServices = {},
    { onEvent = warnOfStoreEvent, create = true }: CompositionOptions = {},
  ) {
    this.#create = create;
    this.#registries = registries;
    this.#named = named;
    this.#onEvent = onEvent;
  }

  /**
   * Loads the services of a TOML file, each in a table `[KIND.NAME]` with its `type` and the keys of that type. Opens
   * nothing yet.
   *
   * @throws CastoreError `invalid_argument` for malformed TOML, and for an unknown kind, type or key or an invalid
   *   value, naming it and the valid ones
   */
  static async parseToml(
    registries: Registries,
    text: string,
    options?: ParseTomlOptions,
  ): Promise<Composition> {
    const { parseComposition } = await import("./toml.ts");
    const { tomlError } = await import("./toml-file.ts");
    const file = { name: options?.name ?? "store composition", text };
    const named = await parseComposition(file, Object.keys(registries), options?.otherTables);
    const composition = new Composition(registries, named, options);
    composition.#name = file.name;
    const refuseIn =
      (kind: string, name: string): Refuse =>
      ({ path, reason }) =>
        tomlError(file, [kind, name, ...path], `[${kind}.${name}]: ${reason}`);
    const tables = (Object.keys(named) as ServiceKind[]).flatMap((kind) =>
      Object.keys(named[kind] ?? {}).map((name) => [kind, name] as const),
    );
    for (const [kind, name] of tables) await composition.#opener(kind, name, refuseIn(kind, name));
    for (const [kind, name] of tables) {
      await composition.#checkReferences(kind, name, refuseIn(kind, name));
    }
    return composition;
  }

  /**
   * Opens a service, or returns the open one. Cancelling ends the wait; the service is still opened, as other callers
   * may wait too.
   *
   * @param reference a name, or an address. Default: `default`, or `root` if there is no such name
   * @throws CastoreError `invalid_argument` for an unknown name, type or key, for a cycle, and once the composition is
   *   disposed of; `not_found` for a store that does not exist and is not to be created; the errors of opening
   */
  async service<Kind extends ServiceKind>(
    kind: Kind,
    reference?: string,
    options?: AbortOptions,
  ): Promise<ServiceKinds[Kind]> {
    return await this.#service(kind, reference ?? this.#entryPoint(kind), undefined, options);
  }

  /** Returns what the open services that have statistics tell of themselves. */
  async statistics(): Promise<readonly NamedStatistics[]> {
    const all = this.#stores.map(async ({ kind, store, service }) => {
      const statistics = await statisticsOf(service);
      return statistics === undefined ? [] : [{ kind, store, ...statistics }];
    });
    return (await Promise.all(all)).flat();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const message = "Cannot open a service: expected an open composition, found a disposed one";
    this.#abandon.abort(new CastoreError("invalid_argument", message));
    await Promise.allSettled(this.#opened.values());
    await this.#closing.disposeAsync();
  }

  #entryPoint(kind: ServiceKind): string {
    const found = ENTRY_POINTS.find((name) => this.#config(kind, name) !== undefined);
    if (found !== undefined) return found;
    const names = Object.keys(this.#named[kind] ?? {}).join(", ") || "none";
    throw new CastoreError(
      "invalid_argument",
      `Cannot use ${this.#name}: expected a ${this.#registry(kind).kind} [${kind}.default], found ${names}`,
    );
  }

  #config(kind: ServiceKind, name: string): ServiceConfig | undefined {
    const named = this.#named[kind] ?? {};
    return Object.hasOwn(named, name) ? named[name] : undefined;
  }

  async #service<Kind extends ServiceKind>(
    kind: Kind,
    reference: string,
    parent: Wanted | undefined,
    { role = "store", ...options }: AbortOptions & { role?: ServiceRole | undefined } = {},
  ): Promise<ServiceKinds[Kind]> {
    options.signal?.throwIfAborted();
    this.#abandon.signal.throwIfAborted();
    const wanted = this.#wanted(kind, reference);
    if (parent !== undefined) this.#addNeed(parent, wanted);
    let opened = this.#opened.get(wanted.key) as Promise<ServiceKinds[Kind]> | undefined;
    if (opened === undefined) {
      opened = this.#open(kind, reference, wanted, role);
      this.#opened.set(wanted.key, opened);
      // The next call tries again.
      opened.catch(() => this.#opened.delete(wanted.key));
    }
    return await unlessAborted(opened, options.signal);
  }

  #wanted(kind: ServiceKind, reference: string): Wanted {
    if (this.#isAddress(kind, reference)) {
      const key = `${kind}#${this.#anonymous++}`;
      return { key, label: showUnparsed(reference), named: false };
    }
    const label = `[${kind}.${reference}]`;
    return { key: label, label, named: true };
  }

  #isAddress(kind: ServiceKind, reference: string): boolean {
    if (reference.includes("://")) return true;
    return this.#config(kind, reference) === undefined && /^[a-z][a-z0-9+.-]*:/.test(reference);
  }

  async #open<Kind extends ServiceKind>(
    kind: Kind,
    reference: string,
    wanted: Wanted,
    role: ServiceRole,
  ): Promise<ServiceKinds[Kind]> {
    const opener = await this.#opener(kind, reference);
    const { name } = opener;
    const { signal } = this.#abandon;
    try {
      if (!this.#create && role === "store") expectTrace(opener.traces());
      const opened = await opener.open({
        name,
        signal,
        corrupt: (message) => this.#onEvent({ type: "corrupt", kind, store: name, message }),
        warn: (message) => this.#onEvent({ type: "warning", kind, store: name, message }),
        service: (kind, reference, role) =>
          this.#service(kind, reference, wanted, { signal, role }),
      });
      const reason = await whyReadOnly(opener.files());
      if (reason !== undefined) {
        const type = role === "cache" ? "warning" : "read-only";
        this.#onEvent({ type, kind, store: name, message: `Cannot write to it: ${reason}` });
      }
      const { contract, calls } = this.#registry(kind);
      const service = instrument<ServiceKinds[Kind]>(opened, contract, name, calls);
      // The caller may replace the disposal of the returned service.
      this.#closing.defer(service[Symbol.asyncDispose]);
      this.#stores.push({ kind, store: name, service: opened });
      return service;
    } catch (error) {
      if (!(error instanceof CastoreError) || error === signal.reason) throw error;
      if (!opener.named) {
        nameStore(error, name);
        throw error;
      }
      const message = `Cannot open ${wanted.label}: ${error.message}`;
      const failure = new CastoreError(error.code, message, { cause: error });
      failure.store = error.store ?? name;
      throw failure;
    } finally {
      this.#needs.delete(wanted.key);
    }
  }

  /** @throws CastoreError `invalid_argument` if that would make a cycle */
  #addNeed(wanted: Wanted, needed: Wanted): void {
    const path = this.#pathOfNeeds(needed, wanted.key);
    if (path !== undefined) {
      // Only a named service can be part of a cycle, so there is one.
      const first = path.findIndex(({ named }) => named);
      const round = [...path.slice(first), ...path.slice(0, first), path[first]!];
      const cycle = round.map(({ label }) => label).join(" -> ");
      throw new CastoreError(
        "invalid_argument",
        `Cannot open services: expected no cycle, found ${cycle}`,
      );
    }
    const needs = this.#needs.get(wanted.key) ?? new Set();
    this.#needs.set(wanted.key, needs.add(needed));
  }

  /** Returns the path by which one service waits for another, both included; `undefined` if there is none. */
  #pathOfNeeds(from: Wanted, to: string): Wanted[] | undefined {
    if (from.key === to) return [from];
    for (const next of this.#needs.get(from.key) ?? []) {
      const path = this.#pathOfNeeds(next, to);
      if (path !== undefined) return [from, ...path];
    }
    return undefined;
  }

  #registry<Kind extends ServiceKind>(kind: Kind): ServiceRegistry<ServiceKinds[Kind]> {
    const registry = this.#registries[kind] as ServiceRegistry<ServiceKinds[Kind]> | undefined;
    if (registry !== undefined) return registry;
    const known = Object.keys(this.#registries).join(", ");
    throw new CastoreError("invalid_argument", `Cannot use "${kind}": expected ${known}`);
  }

  /** Refuses a table that refers to a service that there is not. */
  async #checkReferences(kind: ServiceKind, name: string, refuse: Refuse): Promise<void> {
    const { type, ...keys } = this.#config(kind, name) as Exclude<ServiceConfig, string>;
    const { references = {} } = this.#registry<ServiceKind>(kind).types[type]!;
    for (const [key, referred] of Object.entries(references)) {
      const reference = keys[key];
      if (typeof reference !== "string") continue;
      try {
        await this.#opener(referred, reference);
      } catch (error) {
        if (!hasCode(error, "invalid_argument")) throw error;
        throw await refuse({ path: [key], reason: `key "${key}": ${error.message}` });
      }
    }
  }

  async #opener<Kind extends ServiceKind>(
    kind: Kind,
    reference: string,
    refuse?: Refuse,
  ): Promise<Opener<ServiceKinds[Kind]>> {
    const registry = this.#registry(kind);
    if (this.#isAddress(kind, reference)) return await addressOpener(registry, reference);
    const config = this.#config(kind, reference);
    const label = `[${kind}.${reference}]`;
    if (config === undefined) {
      const names = Object.keys(this.#named[kind] ?? {});
      const nearest = nearestOf(reference, names);
      const guess = nearest === undefined ? "" : `; did you mean "${nearest}"?`;
      const expected = `expected the name of a ${registry.kind} (${names.join(", ") || "none"})`;
      throw new CastoreError(
        "invalid_argument",
        `Cannot open ${label}: ${expected}, found "${reference}"${guess}`,
      );
    }
    if (typeof config === "string") return await addressOpener(registry, config);
    return await tableOpener(registry, label, reference, config, refuse);
  }
}

/**
 * Refuses a store that does not exist.
 *
 * @param traces see {@link Opener.traces}
 * @throws CastoreError `not_found` if none exists
 */
function expectTrace(traces: readonly string[]): void {
  if (traces.length === 0 || traces.some((path) => existsSync(path))) return;
  const found = `found no ${traces.map((path) => JSON.stringify(path)).join(" and no ")}`;
  const advice = "check its address, or make it by importing into it";
  throw new CastoreError("not_found", `Cannot open it: expected a store, ${found}; ${advice}`);
}

/** Emits a process warning for an event of a store, but for one that can only be read. */
export function warnOfStoreEvent({ type, store, message }: StoreEvent): void {
  if (type === "read-only") return;
  process.emitWarning(`${store}: ${message}`);
}
