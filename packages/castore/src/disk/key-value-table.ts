import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { Statement } from "better-sqlite3";
import type { AbortOptions } from "../bytes/abort-options.ts";
import {
  beginWrite,
  closeDatabase,
  commit,
  type Database,
  openDatabase,
  rollback,
  sqliteError,
  waitForLocks,
} from "./database.ts";

/** A row: a key of bytes and what is stored under it. */
export type Row = readonly [key: Uint8Array, data: Uint8Array];

/** What {@link KeyValueTable.open} is told. */
export interface KeyValueTableOptions extends AbortOptions {
  /** The database file, or `":memory:"` for a temporary one. */
  path: string;
  /** Tells our kinds of databases apart, see `DatabaseFormat`. */
  applicationId: number;
  /** Name of the table. */
  table: string;
  /** Name of the column that holds the keys. */
  keyColumn: string;
  /**
   * Returns what is stored when a key is put that is taken, called within the transaction: what one process puts, no
   * other can lose. What it throws fails the put. Default: `given`.
   */
  merge?: (stored: Uint8Array, given: Uint8Array) => Uint8Array;
}

/** After how many rows of a transaction other events get their turn. */
const ROWS_PER_TURN = 500;

interface Job {
  readonly statement: Statement<[Uint8Array, Uint8Array]>;
  readonly rows: Iterable<Row>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
  readonly signal: AbortSignal | undefined;
  /** From here on the job is not cancelled any more. */
  readonly begin: () => void;
}

/**
 * A SQLite table from keys to bytes. Writes that wait at the same time share one transaction, and so
 * one fsync. Several processes may use the same file.
 */
export class KeyValueTable implements AsyncDisposable {
  readonly #path: string;
  readonly #reader: Database;
  /** A connection of its own for transactions, which go on while others read. */
  readonly #writer: Database;
  readonly #get;
  readonly #has;
  readonly #page;
  readonly #put;
  readonly #remove;
  readonly #queue: Job[] = [];
  #writing: Promise<void> | undefined;

  private constructor(options: KeyValueTableOptions, reader: Database, writer: Database) {
    const { table, keyColumn: key } = options;
    this.#path = options.path;
    this.#reader = reader;
    this.#writer = writer;
    if (reader !== writer) waitForLocks(reader);
    this.#get = reader
      .prepare<[Uint8Array], Buffer>(`SELECT data FROM ${table} WHERE ${key} = ?`)
      .pluck();
    this.#has = reader.prepare<[Uint8Array], 1>(`SELECT 1 FROM ${table} WHERE ${key} = ?`).pluck();
    this.#page = reader
      .prepare<[Uint8Array, number], [Buffer, Buffer]>(
        `SELECT ${key}, data FROM ${table} WHERE ${key} > ? ORDER BY ${key} LIMIT ?`,
      )
      .raw();
    // Replaces what is there, which may be damaged, but leaves the same bytes alone.
    const { merge } = options;
    if (merge)
      writer.function("merge", (stored, given) => merge(stored as Buffer, given as Buffer));
    const merged = merge ? "merge(data, excluded.data)" : "excluded.data";
    this.#put = writer.prepare<[Uint8Array, Uint8Array]>(
      `INSERT INTO ${table} (${key}, data) VALUES (?, ?)
       ON CONFLICT DO UPDATE SET data = ${merged} WHERE data IS NOT excluded.data`,
    );
    this.#remove = writer.prepare<[Uint8Array, Uint8Array]>(
      `DELETE FROM ${table} WHERE ${key} = ? AND data = ?`,
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
      const isOnly = writer.memory || writer.readonly; // nobody writes while others read
      const reader = isOnly ? writer : await openDatabase(path, format, options);
      return new KeyValueTable(options, reader, writer);
    } catch (error) {
      closeDatabase(writer);
      throw error;
    }
  }

  /** What is stored under a key; `undefined` if there is nothing. */
  get(key: Uint8Array): Uint8Array | undefined {
    return this.#read(() => this.#get.get(key));
  }

  /** Whether something is stored under a key. */
  has(key: Uint8Array): boolean {
    return this.#read(() => this.#has.get(key) !== undefined);
  }

  /** Up to `limit` rows with keys above `after`, ordered by key. */
  page(after: Uint8Array, limit: number): readonly Row[] {
    return this.#read(() => this.#page.all(after, limit));
  }

  /**
   * Stores rows, all of them or none, and resolves once they are durable. A row under a key that is
   * taken replaces it, or is merged with it, see {@link KeyValueTableOptions.merge}.
   */
  put(rows: Iterable<Row>, options?: AbortOptions): Promise<void> {
    return this.#enqueue(this.#put, rows, options?.signal);
  }

  /** Removes a row that turned out to be damaged, unless it was replaced meanwhile. */
  remove(row: Row): Promise<void> {
    return this.#enqueue(this.#remove, [row]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writing;
    closeDatabase(this.#reader);
    closeDatabase(this.#writer);
  }

  async #enqueue(
    statement: Job["statement"],
    rows: Iterable<Row>,
    signal?: AbortSignal,
  ): Promise<void> {
    signal?.throwIfAborted();
    let cancel = () => {};
    try {
      await new Promise<void>((resolve, reject) => {
        cancel = () => reject(signal?.reason);
        signal?.addEventListener("abort", cancel, { once: true });
        const begin = () => signal?.removeEventListener("abort", cancel);
        this.#queue.push({ statement, rows, resolve, reject, signal, begin });
        this.#writing ??= this.#writeQueue();
      });
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  async #writeQueue(): Promise<void> {
    await yieldToEvents(); // writers of the same turn get into the same transaction
    while (this.#queue.length > 0) {
      const jobs = this.#queue.splice(0);
      if (jobs.length > 1 && (await this.#commit(jobs)) === undefined) continue;
      // Alone, or one of them failed: each gets its own answer.
      for (const job of jobs) {
        const failure = await this.#commit([job]);
        if (failure !== undefined) job.reject(failure.error);
      }
    }
    this.#writing = undefined;
  }

  /** Commits all jobs in one transaction and resolves them; gives the error if that fails. */
  async #commit(jobs: readonly Job[]): Promise<{ error: unknown } | undefined> {
    try {
      await beginWrite(this.#writer);
      const wanted = jobs.filter(({ signal }) => !signal?.aborted);
      for (const { signal, reject } of jobs) if (signal?.aborted) reject(signal.reason);
      for (const { begin } of wanted) begin();
      let count = 0;
      for (const { statement, rows } of wanted) {
        for (const [key, data] of rows) {
          statement.run(key, data);
          count += 1;
          // A database in memory has one connection, on which readers would see what is not committed.
          const turn = count % ROWS_PER_TURN === 0 && this.#reader !== this.#writer;
          if (turn) await yieldToEvents();
        }
      }
      commit(this.#writer);
    } catch (error) {
      rollback(this.#writer);
      return { error: sqliteError(error, `Cannot write to database "${this.#path}"`) };
    }
    for (const { resolve } of jobs) resolve();
    return undefined;
  }

  #read<T>(query: () => T): T {
    try {
      return query();
    } catch (error) {
      throw sqliteError(error, `Cannot read from database "${this.#path}"`);
    }
  }
}
