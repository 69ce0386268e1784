import {
  type AbortOptions,
  type BlobService,
  CastoreError,
  Composition,
  type CompositionOptions,
  type DirectoryService,
  hasCode,
  type NamedStatistics,
  type ServiceKind,
  type ServiceKinds,
  type StoreEvent,
  warnOfStoreEvent,
} from "@tvix/castore";
import type { TomlFile } from "@tvix/castore/toml";
import { type PathInfoService, STORE_REGISTRIES } from "@tvix/store";
import { hasEscapedBytes } from "./arguments.ts";
import type { ServiceOptions } from "./options/addresses.ts";
import { readTomlFile } from "./read-input-file.ts";

/** What a command does with a store that can only be read: refuses it, tells it as an event, or uses it. */
type ReadOnlyPolicy = "refuse" | "tell" | "use";

/** The options for the addresses of services, by kind. */
const ADDRESS_OPTIONS: Readonly<Record<ServiceKind, string>> = {
  blobservices: "--blob-service-addr",
  directoryservices: "--directory-service-addr",
  pathinfoservices: "--path-info-service-addr",
};

/** For how long other services of one store repeat its events, in milliseconds. */
const REPEATS_MS = 10_000;

/** The three services that a command works on. Disposing closes them. */
export interface Services extends AsyncDisposable {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
  readonly pathInfoService: PathInfoService;
  /** The file that describes them; `undefined` where addresses name them. */
  readonly compositionFile: TomlFile | undefined;
  /** Returns what the open stores tell of themselves, for metrics. */
  statistics(): Promise<readonly NamedStatistics[]>;
}

/** Options of {@link openServices}. */
export interface OpenServicesOptions extends AbortOptions, CompositionOptions {
  /** What to do with a store that can only be read. Default: `use`. */
  readonly readOnly?: ReadOnlyPolicy;
  /** The option that names all three services, for advice. Default: one for each. */
  readonly option?: string | undefined;
}

/**
 * Opens the three services. If one of them cannot be opened, the others are closed.
 *
 * @param options.onEvent receives the events of stores. Default: a process warning for each
 * @throws CastoreError `permission_denied` for a store that can only be read, if it is to be refused; `not_found` for one
 *   that does not exist and is not to be created; whatever opening the services throws
 */
export async function openServices(
  services: ServiceOptions,
  {
    readOnly = "use",
    option,
    onEvent = warnOfStoreEvent,
    create,
    signal,
  }: OpenServicesOptions = {},
): Promise<Services> {
  await using stack = new AsyncDisposableStack();
  let refused: StoreEvent | undefined;
  const tell = withoutRepeats(onEvent);
  const { storeComposition } = services;
  const compositionFile =
    storeComposition === undefined
      ? undefined
      : await readTomlFile("store composition", storeComposition);
  const composition = stack.use(
    await compose(compositionFile ?? services, {
      create,
      onEvent(event) {
        if (event.type !== "read-only" || readOnly === "tell") tell(event);
        else if (readOnly === "refuse") refused ??= event;
      },
    }),
  );
  const open = async <Kind extends ServiceKind>(kind: Kind): Promise<ServiceKinds[Kind]> => {
    try {
      const service = await composition.service(kind, undefined, { signal });
      if (refused === undefined) return service;
      const { store, message } = refused;
      throw new CastoreError("permission_denied", `${store}: ${message}`);
    } catch (error) {
      if (!hasCode(error, "permission_denied")) throw error;
      const other = option ?? ADDRESS_OPTIONS[kind];
      const named = compositionFile === undefined ? ` with ${other}` : "";
      const advice = `make it writable for this user, or name another store${named}`;
      throw new CastoreError(error.code, `${error.message}; ${advice}`, { cause: error });
    }
  };
  if (create === false) await open("pathinfoservices"); // it may fill the others, which are created then
  const blobService = await open("blobservices");
  const directoryService = await open("directoryservices");
  const pathInfoService = await open("pathinfoservices");
  const opened = stack.move();
  return {
    blobService,
    directoryService,
    pathInfoService,
    compositionFile,
    statistics: () => composition.statistics(),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

/** Passes events on, but not what another service of the same store has just told, such as a daemon that is gone. */
function withoutRepeats(onEvent: (event: StoreEvent) => void): (event: StoreEvent) => void {
  let last: { readonly key: string; readonly kind: string; readonly atMs: number } | undefined;
  return (event) => {
    const { store, message, kind } = event;
    const key = `${store}: ${message}`;
    const isRepeat = last?.key === key && last.kind !== kind;
    if (isRepeat && performance.now() - last!.atMs < REPEATS_MS) return;
    last = { key, kind, atMs: performance.now() };
    onEvent(event);
  };
}

async function compose(
  described: TomlFile | ServiceOptions,
  options: CompositionOptions,
): Promise<Composition> {
  if ("text" in described) {
    const { name, text } = described;
    const otherTables = ["upstreams"]; // which only what serves them reads
    return await Composition.parseToml(STORE_REGISTRIES, text, { ...options, name, otherTables });
  }
  const named = {
    blobservices: { default: given("--blob-service-addr", described.blobServiceAddr) },
    directoryservices: {
      default: given("--directory-service-addr", described.directoryServiceAddr),
    },
    pathinfoservices: { default: given("--path-info-service-addr", described.pathInfoServiceAddr) },
  };
  return new Composition(STORE_REGISTRIES, named, options);
}

/**
 * Returns the value of an option for an address.
 *
 * @throws CastoreError `invalid_argument` if there is none, or it is not UTF-8
 */
function given(option: string, address: string | undefined): string {
  if (address === undefined) {
    throw new CastoreError(
      "invalid_argument",
      `Cannot find a folder for the embedded stores: expected STATE_DIRECTORY, XDG_STATE_HOME or HOME in the environment, found none; set one of them, or pass ${option}`,
    );
  }
  if (hasEscapedBytes(address)) {
    throw new CastoreError(
      "invalid_argument",
      `Cannot use the address in ${option}: expected UTF-8, found other bytes; percent-encode them`,
    );
  }
  return address;
}
