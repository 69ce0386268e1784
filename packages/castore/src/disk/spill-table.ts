import { sqliteError } from "./database.ts";
import { connectSqlite } from "./sqlite.ts";

/** Page cache of SQLite in KiB. Pages beyond it are written to a temporary file. */
const CACHE_KIB = 2048;

/** A table from keys to bytes that spills to a temporary file. Disposing removes the file. */
export class SpillTable implements Disposable {
  readonly #database = connectSqlite(""); // names a database in a temporary file
  readonly #insert;
  readonly #select;

  constructor() {
    this.#database.pragma("journal_mode = OFF");
    this.#database.pragma("synchronous = OFF");
    this.#database.pragma(`cache_size = -${CACHE_KIB}`);
    this.#database.exec("CREATE TABLE spill (key BLOB PRIMARY KEY, data BLOB) WITHOUT ROWID");
    this.#insert = this.#database.prepare<[Uint8Array, Uint8Array]>(
      "INSERT OR IGNORE INTO spill VALUES (?, ?)",
    );
    this.#select = this.#database
      .prepare<[Uint8Array], Buffer>("SELECT data FROM spill WHERE key = ?")
      .pluck();
  }

  /**
   * Adds a value. An existing key keeps its value.
   *
   * @throws CastoreError `resource_exhausted` when the disk is full
   */
  add(key: Uint8Array, data: Uint8Array): void {
    try {
      this.#insert.run(key, data);
    } catch (error) {
      throw sqliteError(error, "Cannot write to a temporary file");
    }
  }

  /** Returns the value of a key; `undefined` if there is none. */
  get(key: Uint8Array): Uint8Array | undefined {
    try {
      return this.#select.get(key);
    } catch (error) {
      throw sqliteError(error, "Cannot read from a temporary file");
    }
  }

  /** Iterates over the rows, ordered by key. No row is added meanwhile. */
  entries(): IterableIterator<[Uint8Array, Uint8Array]> {
    const query = this.#database.prepare<[], [Buffer, Buffer]>("SELECT key, data FROM spill");
    return query.raw().iterate();
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }
}
