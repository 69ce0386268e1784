import { createRequire } from "node:module";
import type Sqlite from "better-sqlite3";

/** A SQLite connection, synchronous. */
export type Database = Sqlite.Database;

const require = createRequire(import.meta.url);
let loaded: typeof Sqlite | undefined;

/**
 * Connects to a database, or creates it. SQLite is loaded by the first call: what only talks to a daemon needs none.
 *
 * @param source the path of a file, `""` for a temporary one, or the bytes of a database
 */
export function connectSqlite(source: string | Buffer, options?: Sqlite.Options): Database {
  loaded ??= require("better-sqlite3") as typeof Sqlite;
  return new loaded(source, options);
}

/** Tells whether an error is one of SQLite. */
export function isSqliteError(error: unknown): error is InstanceType<typeof Sqlite.SqliteError> {
  return loaded !== undefined && error instanceof loaded.SqliteError;
}
