import { unlessAborted } from "../abort.ts";
import { CastoreError } from "../errors.ts";
import type { AbortOptions } from "../options.ts";
import { addressOpener, type Opener, type ServiceConfig, tableOpener } from "./opener.ts";
import type { Registries, ServiceKind, ServiceKinds, ServiceRegistry } from "./registry.ts";
import { showUnparsed } from "./service-address.ts";

/** The services that can be referred to by name. */
export type NamedServices = {
  readonly [Kind in ServiceKind]?: Readonly<Record<string, ServiceConfig>>;
};

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
  readonly #opened = new Map<string, Promise<unknown>>();
  /** Which services wait for which, by key. */
  readonly #needs = new Map<string, Set<Wanted>>();
  readonly #closing = new AsyncDisposableStack();
  /** Gives up what is being opened when the composition is disposed of. */
  readonly #abandon = new AbortController();
  #closed: Promise<void> | undefined;
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
    this.#abandon.abort(this.#disposedError());
    await Promise.allSettled(this.#opened.values());
    await this.#closing.disposeAsync();
  }

  #disposedError(): CastoreError {
    return new CastoreError("invalid_argument", "Cannot open a service: the composition has ended");
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
    if (this.#closed !== undefined) throw this.#disposedError();
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
    const { signal } = this.#abandon;
    try {
      const service = await opener.open({
        name: opener.name,
        signal,
        service: (kind, reference) => this.#service(kind, reference, wanted, { signal }),
      });
      // What closes it may be replaced in the service that is handed out.
      this.#closing.defer(service[Symbol.asyncDispose].bind(service));
      return service;
    } catch (error) {
      if (!opener.named || !(error instanceof CastoreError)) throw error;
      const message = `Cannot open ${wanted.label}: ${error.message}`;
      throw new CastoreError(error.code, message, { cause: error });
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

  async #opener<Kind extends ServiceKind>(
    kind: Kind,
    reference: string,
  ): Promise<Opener<ServiceKinds[Kind]>> {
    const registry = this.#registries[kind] as ServiceRegistry<ServiceKinds[Kind]> | undefined;
    if (registry === undefined) {
      const known = Object.keys(this.#registries).join(", ");
      throw new CastoreError("invalid_argument", `Cannot use "${kind}": expected ${known}`);
    }
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
