import { join } from "node:path";
import type { AbortOptions, Node } from "@tvix/castore";
import type {
  ContentServices,
  CopyContentsOptions,
  PathMetadata,
  StorePathSource,
} from "../copy/store-path-source.ts";
import { STORE_DIR } from "../nix/store-path.ts";
import { importContents } from "./import-contents.ts";
import { NixDatabase } from "./nix-database.ts";

/** Where a local store of Nix is, whose store dir is `/nix/store`. */
export interface LocalNixOptions {
  /** The folder with the store paths. Default: `/nix/store`. */
  realStoreDir?: string | undefined;
  /** The state folder of Nix. Default: `/nix/var/nix`. */
  stateDir?: string | undefined;
}

/**
 * The store paths of a local Nix: contents from the file system, everything else from the database of Nix. Each file is
 * read once, and the NAR is compared with what Nix has registered.
 */
export class LocalNixStore implements StorePathSource {
  readonly name: string;
  readonly #database: NixDatabase;
  readonly #storeDir: string;

  private constructor(storeDir: string, database: NixDatabase) {
    this.name = `the local Nix store "${storeDir}"`;
    this.#storeDir = storeDir;
    this.#database = database;
  }

  /** @throws CastoreError `not_found` if Nix has no database there; by the cause if it cannot be read */
  static async open({
    realStoreDir = STORE_DIR,
    stateDir = "/nix/var/nix",
  }: LocalNixOptions = {}): Promise<LocalNixStore> {
    const database = await NixDatabase.open(join(stateDir, "db/db.sqlite"));
    return new LocalNixStore(realStoreDir, database);
  }

  async getMany(
    hashParts: readonly Uint8Array[],
    { signal }: AbortOptions = {},
  ): Promise<readonly (PathMetadata | undefined)[]> {
    signal?.throwIfAborted();
    return hashParts.map((hashPart) => this.#database.get(hashPart));
  }

  async copyContents(
    path: PathMetadata,
    to: ContentServices,
    options?: CopyContentsOptions,
  ): Promise<Node> {
    return await importContents(join(this.#storeDir, `${path.storePath}`), path, to, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#database[Symbol.dispose]();
  }
}
