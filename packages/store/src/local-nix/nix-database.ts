import { CastoreError } from "@tvix/castore";
import {
  closeDatabase,
  type Database,
  openForeignDatabase,
  sqliteError,
} from "@tvix/castore/sqlite";
import type { PathMetadata } from "../copy/store-path-source.ts";
import { inContext, StoreError } from "../errors.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { STORE_DIR } from "../nix/store-path.ts";
import { parsePathMetadata } from "./path-metadata.ts";

type Statement = ReturnType<Database["prepare"]>;

/** A row of `ValidPaths`. */
interface PathRow {
  readonly id: bigint;
  readonly path: string;
  readonly hash: string;
  readonly narSize: bigint | null;
  readonly deriver: string | null;
  readonly sigs: string | null;
  readonly ca: string | null;
}

/**
 * Reads the database in which Nix registers the paths of a local store, `db/db.sqlite` in its state folder. Nix may change
 * it meanwhile.
 * https://github.com/NixOS/nix/blob/2.34.0/src/libstore/schema.sql
 */
export class NixDatabase implements Disposable {
  readonly #path: string;
  readonly #db: Database;
  readonly #find: Statement;
  readonly #references: Statement;

  private constructor(path: string, db: Database) {
    this.#path = path;
    this.#db = db;
    this.#find = this.#prepare(
      "SELECT id, path, hash, narSize, deriver, sigs, ca FROM ValidPaths WHERE path >= ? AND path < ?",
    );
    this.#references = this.#prepare(
      "SELECT path FROM Refs JOIN ValidPaths ON reference = id WHERE referrer = ? ORDER BY path",
    );
  }

  /** @throws CastoreError `not_found` if there is no such file; as `openForeignDatabase` */
  static async open(path: string): Promise<NixDatabase> {
    const db = await openForeignDatabase(path);
    try {
      return new NixDatabase(path, db);
    } catch (error) {
      closeDatabase(db);
      throw error;
    }
  }

  /**
   * Returns what Nix knows of a valid path, by its hash part of 20 bytes; `undefined` if there is none.
   *
   * @throws StoreError `data_loss` for a row that is damaged; CastoreError by the cause if the database cannot be read
   */
  get(hashPart: Uint8Array): PathMetadata | undefined {
    const prefix = `${STORE_DIR}/${encodeNixbase32(hashPart)}-`;
    const end = `${prefix.slice(0, -1)}.`; // the character after the dash
    const [row] = this.#read(() => this.#find.all([prefix, end])) as (PathRow | undefined)[];
    if (row === undefined) return undefined;
    const references = this.#read(() => this.#references.all(row.id)) as { path: string }[];
    return this.#parse(
      row,
      references.map(({ path }) => path),
    );
  }

  [Symbol.dispose](): void {
    closeDatabase(this.#db);
  }

  #prepare(sql: string): Statement {
    return this.#read(() => this.#db.prepare<unknown[]>(sql).safeIntegers());
  }

  #read<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      throw sqliteError(error, `Cannot read the Nix database "${this.#path}"`);
    }
  }

  #parse(row: PathRow, references: readonly string[]): PathMetadata {
    try {
      return inContext(`Cannot read "${row.path}" in the Nix database "${this.#path}"`, () =>
        metadataOf(row, references),
      );
    } catch (error) {
      if (!(error instanceof CastoreError)) throw error;
      throw new StoreError("data_loss", error.message, { cause: error });
    }
  }
}

function metadataOf(row: PathRow, references: readonly string[]): PathMetadata {
  const { path, hash, narSize, deriver, sigs, ca } = row;
  if (!narSize) throw new StoreError("data_loss", "expected the size of its NAR, found none");
  const signatures = (sigs ?? "").split(" ").filter(Boolean);
  return parsePathMetadata({ path, narHash: hash, narSize, references, signatures, deriver, ca });
}
