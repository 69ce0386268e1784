import { lstatSync } from "node:fs";
import { type AbortOptions, CastoreError, hasCode, type ImportProgress } from "@tvix/castore";
import {
  findPaths,
  PathCopier,
  type PathInfo,
  type PathMetadata,
  StoreError,
  StorePath,
} from "@tvix/store";
import type { LocalNixStore } from "@tvix/store/local-nix";
import { leadIntoStore } from "../lead-into-store.ts";
import type { Services } from "../services.ts";

/** A store path of the local Nix that is to be imported. */
export interface NixImport {
  /** What it is called on the command line, or the store path where only another refers to it. */
  readonly source: string;
  /** Length of the NAR in bytes, 0 if it is stored already. */
  readonly narSize: number;
  /** Imports it; only its signatures, if it is stored already. */
  run(
    options: AbortOptions & { onProgress: (progress: ImportProgress) => void },
  ): Promise<PathInfo>;
}

/** A store path of the local Nix, and whether symlinks from elsewhere lead to it. */
interface NixStorePath {
  readonly storePath: StorePath;
  readonly isFollowed: boolean;
}

/** A database of Nix that is open. */
interface OpenNix {
  readonly store: LocalNixStore;
  readonly copier: PathCopier;
}

/** Finds the store paths of a local Nix among arguments. Disposing closes the database of Nix. */
export class NixImports implements AsyncDisposable {
  readonly #services: Services;
  readonly #tell: (message: string) => void;
  #opened: Promise<OpenNix | undefined> | undefined;
  /** Store paths that were listed. */
  readonly #listed = new Set<string>();

  /** @param tell writes a line on stderr */
  constructor(services: Services, tell: (message: string) => void) {
    this.#services = services;
    this.#tell = tell;
  }

  /**
   * Lists what is to be imported for an argument, each behind its references, without what was listed before.
   *
   * @param options.closure whether that includes what the store path refers to
   * @returns `undefined` if the argument is no store path of a local Nix, and names none
   * @throws CastoreError `not_found` if Nix does not know the store path; `invalid_argument` for the closure of any other path
   */
  async list(
    argument: string,
    options: AbortOptions & { closure: boolean },
  ): Promise<NixImport[] | undefined> {
    const found = findNixStorePath(argument);
    const nix = found && (await this.#open(argument));
    if (nix === undefined) {
      if (!options.closure) return undefined;
      throw new CastoreError(
        "invalid_argument",
        `Cannot import the closure of ${JSON.stringify(argument)}: expected a store path of a local Nix, found another path`,
      );
    }
    const imports = await this.#list(argument, found!, nix, options);
    if (found!.isFollowed) {
      const target = found!.storePath.toAbsolutePath();
      this.#tell(`${JSON.stringify(argument)} leads to "${target}", which is imported`);
    }
    return imports;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await (await this.#opened)?.store[Symbol.asyncDispose]();
  }

  async #list(
    argument: string,
    { storePath }: NixStorePath,
    { store, copier }: OpenNix,
    options: AbortOptions & { closure: boolean },
  ): Promise<NixImport[]> {
    const [known] = await store.getMany([storePath.hashPart]);
    if (`${known?.storePath}` !== `${storePath}`) {
      throw new StoreError(
        "not_found",
        `Cannot import "${storePath.toAbsolutePath()}": it is not a valid path of ${store.name}`,
      );
    }
    const found = await findPaths(store, [storePath.hashPart], options);
    const paths = found.filter((path) => !this.#listed.has(`${path.storePath}`));
    const present = await copier.present(paths, options);
    return paths.map((path, i) => {
      this.#listed.add(`${path.storePath}`);
      const isArgument = `${path.storePath}` === `${storePath}`;
      return {
        source: isArgument ? argument : path.storePath.toAbsolutePath(),
        narSize: present[i] === undefined ? Number(path.narSize) : 0,
        run: (options) => importOne(copier, path, present[i], options),
      };
    });
  }

  async #open(argument: string): Promise<OpenNix | undefined> {
    this.#opened ??= openNix(this.#services);
    const nix = await this.#opened;
    if (nix === undefined) {
      this.#tell(
        `warning: ${JSON.stringify(argument)} is imported as any other path, as there is no database of Nix`,
      );
    }
    return nix;
  }
}

async function openNix(services: Services): Promise<OpenNix | undefined> {
  const { LocalNixStore } = await import("@tvix/store/local-nix");
  try {
    const store = await LocalNixStore.open({ stateDir: process.env.NIX_STATE_DIR || undefined });
    return { store, copier: new PathCopier(store, services) };
  } catch (error) {
    if (hasCode(error, "not_found")) return undefined;
    throw error;
  }
}

async function importOne(
  copier: PathCopier,
  path: PathMetadata,
  present: PathInfo | undefined,
  options: AbortOptions & { onProgress: (progress: ImportProgress) => void },
): Promise<PathInfo> {
  if (present === undefined) return await copier.copy(path, options);
  options.onProgress({ entries: 0, bytes: 0, newBytes: 0 });
  return await copier.addSignatures(path, present, options);
}

/**
 * Returns the store path that an argument is, or leads to as a symlink; `undefined` for any other path: also for one below a
 * store path, one with a name that no store path has, and a symlink to what is not there.
 */
function findNixStorePath(argument: string): NixStorePath | undefined {
  const { names: [name = ""] = [], isFollowed = false } =
    leadIntoStore(argument, { toStorePath: true }) ?? {};
  try {
    const storePath = StorePath.parse(name);
    const path = storePath.toAbsolutePath();
    const isThere = !isFollowed || lstatSync(path, { throwIfNoEntry: false }) !== undefined;
    return isThere ? { storePath, isFollowed } : undefined;
  } catch (error) {
    if (hasCode(error, "invalid_argument")) return undefined; // such as .links, or none
    throw error;
  }
}
