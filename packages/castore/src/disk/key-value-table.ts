import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { Statement } from "better-sqlite3";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { compareBytes } from "../bytes/byte-string.ts";
import { CastoreError } from "../model/errors.ts";
import { systemError } from "../model/system-error.ts";
import {
  beginWrite,
  closeDatabase,
  commit,
  isBusy,
  openDatabase,
  rollback,
  sqliteError,
  waitForLocks,
} from "./database.ts";
import { LogFile } from "./log-file.ts";
import type { Database } from "./sqlite.ts";

/** A row: a key and its value, both bytes. */
export type Row = readonly [key: Uint8Array, data: Uint8Array];

/** Options of {@link KeyValueTable.open}. */
export interface KeyValueTableOptions extends AbortOptions {
  /** The database file, or `":memory:"` for a temporary one. */
  path: string;
  /** SQLite application id, see `DatabaseFormat`. */
  applicationId: number;
  /** Name of the table. */
  table: string;
  /** Name of the column that holds the keys. */
  keyColumn: string;
  /**
   * Merges a value with the stored one of the same key, within the transaction, so that no update of another process is
   * lost. If it throws, the put fails. Default: `given`.
   */
  merge?: (stored: Uint8Array, given: Uint8Array) => Uint8Array;
  /**
   * Whether rows may be seen before they are durable: nothing that is durable must depend on having seen one. Waiting for the
   * disk then holds up nobody but the writer of the row. Default: false.
   */
  isSeenEarly?: boolean;
}

/** How many bytes a page of rows has at most, unless a single row has more. */
const PAGE_BYTES = 1024 * 1024;

/** Number of rows of a transaction between turns of the event loop. */
const ROWS_PER_TURN = 500;

/** Options of {@link KeyValueTable.put} and {@link KeyValueTable.remove}. */
export interface WriteRowsOptions extends AbortOptions {
  /**
   * Whether the change outlives a power failure. One that does not outlives the end of this process all the same, and nothing
   * waits for the disk. Default: true.
   */
  isDurable?: boolean | undefined;
}

interface Job {
  readonly statement: Statement<[Uint8Array, Uint8Array | null]>;
  readonly rows: Iterable<readonly [key: Uint8Array, data: Uint8Array | null]>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
  readonly signal: AbortSignal | undefined;
  readonly isDurable: boolean;
  /** Called when the job can no longer be cancelled. */
  readonly begin: () => void;
}

/**
 * A SQLite table from keys to bytes. Concurrent writes share one transaction, and so one fsync (group commit). Several
 * processes may use the same file.
 */
export class KeyValueTable implements AsyncDisposable {
  readonly #path: string;
  readonly #reader: Database;
  /** A second connection for transactions, which run while the other one reads. */
  readonly #writer: Database;
  readonly #get;
  readonly #getOwn;
  readonly #has;
  readonly #page;
  readonly #pageBytes;
  readonly #put;
  readonly #remove;
  readonly #queue: Job[] = [];
  #writing: Promise<void> | undefined;
  /** Whether the connection that writes waits for the disk when it commits. */
  #isSyncing = true;
  /** The write-ahead log, where rows may be seen before they are durable. */
  readonly #log: LogFile | undefined;

  private constructor(options: KeyValueTableOptions, reader: Database, writer: Database) {
    const { table, keyColumn: key, isSeenEarly = false } = options;
    this.#path = options.path;
    if (isSeenEarly && reader !== writer) this.#log = new LogFile(`${options.path}-wal`);
    this.#reader = reader;
    this.#writer = writer;
    if (reader !== writer) waitForLocks(reader);
    const get = `SELECT data FROM ${table} WHERE ${key} = ?`;
    this.#get = reader.prepare<[Uint8Array], Buffer>(get).pluck();
    this.#getOwn = writer.prepare<[Uint8Array], Buffer>(get).pluck();
    this.#has = reader.prepare<[Uint8Array], 1>(`SELECT 1 FROM ${table} WHERE ${key} = ?`).pluck();
    const rows = `SELECT ${key}, data FROM ${table} WHERE ${key} > ? ORDER BY ${key} LIMIT ?`;
    // A page comes as one value: to make a Buffer of each column takes several times as long as to read the rows.
    this.#page = reader
      .prepare<[Uint8Array, number], [Buffer | null, string]>(
        `SELECT CAST(group_concat(CAST(${key} || data AS TEXT), '') AS BLOB),
           group_concat(octet_length(${key}) || ',' || octet_length(data)) FROM (${rows})`,
      )
      .raw();
    this.#pageBytes = reader
      .prepare<[Uint8Array, number], number>(`SELECT total(octet_length(data)) FROM (${rows})`)
      .pluck();
    // Replaces a stored value, which may be damaged; does not rewrite equal bytes.
    const { merge } = options;
    if (merge)
      writer.function("merge", (stored, given) => merge(stored as Buffer, given as Buffer));
    const merged = merge ? "merge(data, excluded.data)" : "excluded.data";
    this.#put = writer.prepare<[Uint8Array, Uint8Array | null]>(
      `INSERT INTO ${table} (${key}, data) VALUES (?, ?)
       ON CONFLICT DO UPDATE SET data = ${merged} WHERE data IS NOT excluded.data`,
    );
    this.#remove = writer.prepare<[Uint8Array, Uint8Array | null]>(
      `DELETE FROM ${table} WHERE ${key} = ? AND data = coalesce(?, data)`,
    );
  }

  /**
   * Opens a table, or creates it.
   *
   * @throws CastoreError as `openDatabase`
   */
  static async open(options: KeyValueTableOptions): Promise<KeyValueTable> {
    const { path, applicationId, table, keyColumn } = options;
    const format = {
      applicationId,
      version: 1,
      schema: `CREATE TABLE ${table} (${keyColumn} BLOB PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID`,
    };
    const writer = await openDatabase(path, format, options);
    try {
      const isOnly = writer.memory || writer.readonly; // no concurrent reads and writes
      const reader = isOnly ? writer : await openDatabase(path, format, options);
      return new KeyValueTable(options, reader, writer);
    } catch (error) {
      closeDatabase(writer);
      throw error;
    }
  }

  /** Returns the value of a key; `undefined` if there is none. */
  get(key: Uint8Array): Uint8Array | undefined {
    return this.#read(() => {
      // The connection that writes still has in memory what it wrote; the other one reads the log again after each commit.
      if (this.#writer.inTransaction) return this.#get.get(key);
      try {
        return this.#getOwn.get(key);
      } catch (error) {
        if (!isBusy(error)) throw error;
        return this.#get.get(key); // which waits
      }
    });
  }

  /** Tells whether a key has a value. */
  has(key: Uint8Array): boolean {
    return this.#read(() => this.#has.get(key) !== undefined);
  }

  /**
   * Returns up to `limit` rows with keys above `after`, ordered by key: fewer where they have more than 1 MiB, none only after
   * the last one. They are parts of one buffer.
   *
   * @throws CastoreError `data_loss` for a table whose keys are not in order
   */
  page(after: Uint8Array, limit: number): readonly Row[] {
    return this.#read(() => {
      let count = limit;
      while (count > 1 && this.#pageBytes.get(after, count)! > PAGE_BYTES) count = count >>> 1;
      const [bytes, lengths] = this.#page.get(after, count)!;
      return bytes === null ? [] : this.#divide(after, bytes, lengths);
    });
  }

  /**
   * Stores rows atomically, and resolves once they are durable. A row with an existing key replaces the stored one, or
   * is merged with it, see {@link KeyValueTableOptions.merge}.
   */
  put(rows: Iterable<Row>, options?: WriteRowsOptions): Promise<void> {
    return this.#enqueue(this.#put, rows, options);
  }

  /** Removes a row, unless it was replaced meanwhile. */
  remove(row: Row, options?: WriteRowsOptions): Promise<void> {
    return this.#enqueue(this.#remove, [row], options);
  }

  /** Removes the row of a key, whatever its value. */
  removeKey(key: Uint8Array, options?: WriteRowsOptions): Promise<void> {
    return this.#enqueue(this.#remove, [[key, null]], options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writing;
    await this.#log?.[Symbol.asyncDispose]();
    closeDatabase(this.#reader);
    closeDatabase(this.#writer);
  }

  async #enqueue(
    statement: Job["statement"],
    rows: Job["rows"],
    { signal, isDurable = true }: WriteRowsOptions = {},
  ): Promise<void> {
    signal?.throwIfAborted();
    let cancel = () => {};
    try {
      await new Promise<void>((resolve, reject) => {
        cancel = () => reject(signal?.reason);
        signal?.addEventListener("abort", cancel, { once: true });
        const begin = () => signal?.removeEventListener("abort", cancel);
        this.#queue.push({ statement, rows, resolve, reject, signal, isDurable, begin });
        this.#writing ??= this.#writeQueue();
      });
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  async #writeQueue(): Promise<void> {
    await yieldToEvents(); // writers of the same turn share the transaction
    while (this.#queue.length > 0) {
      const jobs = this.#queue.splice(0);
      if (jobs.length > 1 && (await this.#commit(jobs)) === undefined) continue;
      // A job alone, or one of several failed: each has a transaction of its own.
      for (const job of jobs) {
        const failure = await this.#commit([job]);
        if (failure !== undefined) job.reject(failure.error);
      }
    }
    this.#writing = undefined;
  }

  /** Commits all jobs in one transaction and resolves them; returns the error if that fails. */
  async #commit(jobs: readonly Job[]): Promise<{ error: unknown } | undefined> {
    try {
      this.#syncCommits(this.#log === undefined && jobs.some(({ isDurable }) => isDurable));
      await beginWrite(this.#writer);
      const wanted = jobs.filter(({ signal }) => !signal?.aborted);
      for (const { signal, reject } of jobs) if (signal?.aborted) reject(signal.reason);
      for (const { begin } of wanted) begin();
      let count = 0;
      for (const { statement, rows } of wanted) {
        for (const [key, data] of rows) {
          statement.run(key, data);
          count += 1;
          // An in-memory database has one connection, on which readers would see uncommitted rows.
          const turn = count % ROWS_PER_TURN === 0 && this.#reader !== this.#writer;
          if (turn) await yieldToEvents();
        }
      }
      commit(this.#writer);
    } catch (error) {
      rollback(this.#writer);
      return { error: this.#writeError(error) };
    }
    for (const { resolve, reject, isDurable } of jobs) {
      if (this.#log === undefined || !isDurable) resolve();
      else this.#log.sync().then(resolve, (error) => reject(this.#writeError(error)));
    }
    return undefined;
  }

  #writeError(error: unknown): unknown {
    const action = `Cannot write to database "${this.#path}"`;
    return systemError(sqliteError(error, action), action);
  }

  /** Sets whether commits wait for the disk. One that does makes those before it durable, too: all are in one log. */
  #syncCommits(isSyncing: boolean): void {
    if (this.#isSyncing === isSyncing) return;
    this.#writer.pragma(`synchronous = ${isSyncing ? "FULL" : "NORMAL"}`);
    this.#isSyncing = isSyncing;
  }

  #divide(after: Uint8Array, bytes: Uint8Array, lengths: string): readonly Row[] {
    const rows: Row[] = [];
    const numbers = lengths.split(",");
    let last = after;
    let at = 0;
    for (let i = 0; i < numbers.length; i += 2) {
      const key = bytes.subarray(at, at + Number(numbers[i]));
      const data = bytes.subarray(at + key.length, at + key.length + Number(numbers[i + 1]));
      at += key.length + data.length;
      if (compareBytes(last, key) >= 0) throw this.#damaged("its keys are not in order");
      rows.push([key, data]);
      last = key;
    }
    if (at !== bytes.length) throw this.#damaged("its rows are not of their lengths");
    return rows;
  }

  #damaged(reason: string): CastoreError {
    return new CastoreError("data_loss", `Cannot read from database "${this.#path}": ${reason}`);
  }

  #read<T>(query: () => T): T {
    try {
      return query();
    } catch (error) {
      throw sqliteError(error, `Cannot read from database "${this.#path}"`);
    }
  }
}
