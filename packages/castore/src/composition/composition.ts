import { showUnparsed } from "../address/service-address.ts";
import { unlessAborted } from "../bytes/abort.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError, nameStore } from "../model/errors.ts";
import { instrument } from "./instrument.ts";
import {
  addressOpener,
  type NamedServices,
  type Opener,
  type ServiceConfig,
  tableOpener,
} from "./opener.ts";
import type { Registries, ServiceKind, ServiceKinds, ServiceRegistry } from "./registry.ts";

/** What a store tells of while it is used, and fails no call. */
export interface StoreEvent {
  /**
   * - `corrupt`: stored bytes are damaged. They count as absent, and storing them again heals
   * - `warning`: something failed that fails nobody's call, such as the local store of a cache
   */
  readonly type: "corrupt" | "warning";
  /** What the store keeps. */
  readonly kind: ServiceKind;
  /** The name of the store, or its address without the keys. */
  readonly store: string;
  /** What happened, without the name of the store. */
  readonly message: string;
}

/** Options of a {@link Composition}. */
export interface CompositionOptions {
  /** Is told what stores tell of. Default: a process warning. */
  onEvent?: ((event: StoreEvent) => void) | undefined;
}

/** The names that stand for what a command works on. */
const ENTRY_POINTS = ["default", "root"];

/** A service that was asked for. */
interface Wanted {
  /** What it is told apart by: a named one is the same whoever asks, one by its address is nobody else's. */
  readonly key: string;
  /** What it is called in messages. */
  readonly label: string;
  readonly named: boolean;
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
  readonly #onEvent: (event: StoreEvent) => void;
  readonly #opened = new Map<string, Promise<unknown>>();
  /** Which services wait for which, by key. */
  readonly #needs = new Map<string, Set<Wanted>>();
  readonly #closing = new AsyncDisposableStack();
  /** Gives up what is being opened when the composition is disposed of. From then on nothing is opened. */
  readonly #abandon = new AbortController();
  #closed: Promise<void> | undefined;
  #anonymous = 0;

  constructor(
    registries: Registries,
    named: NamedServices = {},
    { onEvent = emitWarning }: CompositionOptions = {},
  ) {
    this.#registries = registries;
    this.#named = named;
    this.#onEvent = onEvent;
  }

  /**
   * Takes the services that a TOML file describes, each in a table `[KIND.NAME]` with its `type` and the keys
   * of that. Nothing is opened yet.
   *
   * @throws CastoreError `invalid_argument` for what is no TOML, and for a kind, a type, a key or a value that
   *   is not offered, naming it and what there is
   */
  static async parseToml(
    registries: Registries,
    text: string,
    options?: CompositionOptions,
  ): Promise<Composition> {
    const { parseComposition } = await import("./toml.ts");
    const named = parseComposition(text, Object.keys(registries));
    const composition = new Composition(registries, named, options);
    for (const kind of Object.keys(named) as ServiceKind[]) {
      for (const name of Object.keys(named[kind] ?? {})) await composition.#opener(kind, name);
    }
    return composition;
  }

  /**
   * Opens a service, or gives the one that is open. Cancelling ends the waiting for it; it is opened nevertheless, as
   * others may wait too.
   *
   * @param reference a name, or an address. Default: `default`, or `root` if there is no such name
   * @throws CastoreError `invalid_argument` for an unknown name, type or key, for services that are made of
   *   themselves, and once the composition is disposed of; whatever opening throws
   */
  service<Kind extends ServiceKind>(
    kind: Kind,
    reference?: string,
    options?: AbortOptions,
  ): Promise<ServiceKinds[Kind]> {
    return this.#service(kind, reference ?? this.#entryPoint(kind), undefined, options);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const message = "Cannot open a service: the composition has ended";
    this.#abandon.abort(new CastoreError("invalid_argument", message));
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
    parent: Wanted | undefined,
    options?: AbortOptions,
  ): Promise<ServiceKinds[Kind]> {
    options?.signal?.throwIfAborted();
    this.#abandon.signal.throwIfAborted();
    const wanted = this.#wanted(kind, reference);
    if (parent !== undefined) this.#addNeed(parent, wanted);
    let opened = this.#opened.get(wanted.key) as Promise<ServiceKinds[Kind]> | undefined;
    if (opened === undefined) {
      opened = this.#open(kind, reference, wanted);
      this.#opened.set(wanted.key, opened);
      // Whoever asks again may have better luck.
      opened.catch(() => this.#opened.delete(wanted.key));
    }
    return await unlessAborted(opened, options?.signal);
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
  ): Promise<ServiceKinds[Kind]> {
    const opener = await this.#opener(kind, reference);
    const { name } = opener;
    const { signal } = this.#abandon;
    try {
      const opened = await opener.open({
        name,
        signal,
        corrupt: (message) => this.#onEvent({ type: "corrupt", kind, store: name, message }),
        warn: (message) => this.#onEvent({ type: "warning", kind, store: name, message }),
        service: (kind, reference) => this.#service(kind, reference, wanted, { signal }),
      });
      const { contract, calls } = this.#registry(kind);
      const service = instrument<ServiceKinds[Kind]>(opened, contract, name, calls);
      // What closes it may be replaced in the service that is handed out.
      this.#closing.defer(service[Symbol.asyncDispose]);
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

  /** @throws CastoreError `invalid_argument` if the one would wait for itself then */
  #addNeed(wanted: Wanted, needed: Wanted): void {
    const path = this.#pathOfNeeds(needed, wanted.key);
    if (path !== undefined) {
      // Only a named one can be referred to from within itself, so one of them is.
      const first = path.findIndex(({ named }) => named);
      const round = [...path.slice(first), ...path.slice(0, first), path[first]!];
      const cycle = round.map(({ label }) => label).join(" -> ");
      throw new CastoreError("invalid_argument", `Cannot compose ${cycle}: this is a cycle`);
    }
    const needs = this.#needs.get(wanted.key) ?? new Set();
    this.#needs.set(wanted.key, needs.add(needed));
  }

  /** The services over which one waits for another, both included; `undefined` if it does not. */
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

  async #opener<Kind extends ServiceKind>(
    kind: Kind,
    reference: string,
  ): Promise<Opener<ServiceKinds[Kind]>> {
    const registry = this.#registry(kind);
    if (this.#isAddress(kind, reference)) return await addressOpener(registry, reference);
    const config = this.#config(kind, reference);
    const label = `[${kind}.${reference}]`;
    if (config === undefined) {
      const names = Object.keys(this.#named[kind] ?? {}).join(", ") || "none";
      throw new CastoreError(
        "invalid_argument",
        `Cannot use ${label}: there is no such ${registry.kind}, only ${names}`,
      );
    }
    if (typeof config === "string") return await addressOpener(registry, config);
    return await tableOpener(registry, label, reference, config);
  }
}

function emitWarning({ store, message }: StoreEvent): void {
  process.emitWarning(`${store}: ${message}`);
}
