import { closeSync, fsyncSync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import { CastoreError, type ErrorCode } from "../errors.ts";
import type { AbortOptions } from "../options.ts";
import { systemError } from "../system-error.ts";

/** A SQLite connection, synchronous. */
export type Database = Sqlite.Database;

/** What a database holds. */
export interface DatabaseFormat {
  /** Tells our kinds of databases apart, and from others: a signed 32-bit integer. */
  applicationId: number;
  /** Version of the schema, at least 1. */
  version: number;
  /** SQL that creates the schema in an empty database. */
  schema: string;
}

/** How long a writer waits for another process to finish before it gives up. */
const LOCK_TIMEOUT_MS = 30_000;
const LOCK_POLL_MS = 5;

/**
 * Opens a database, or creates it together with the folders above it. Commits are durable when they
 * return (write-ahead log, synchronous FULL), and several processes may use the same file.
 *
 * @param path a file, or `":memory:"` for a temporary one
 * @throws CastoreError `invalid_argument` for a file of another kind or a newer version, `data_loss`
 *   for one that is damaged, `unavailable` while another process holds it
 */
export async function openDatabase(
  path: string,
  format: DatabaseFormat,
  options?: AbortOptions,
): Promise<Database> {
  let db: Database | undefined;
  try {
    if (path !== ":memory:") mkdirSync(dirname(path), { recursive: true });
    db = new Sqlite(path, { timeout: 0 });
    const opened = db;
    await retryWhileBusy(() => initialize(opened, path, format), options);
    if (path !== ":memory:") syncFolder(dirname(path));
    return db;
  } catch (error) {
    db?.close();
    const action = `Cannot open database "${path}"`;
    throw systemError(sqliteError(error, action), action);
  }
}

function initialize(db: Database, path: string, format: DatabaseFormat): void {
  db.pragma("journal_mode = WAL");
  db.pragma("synchronous = FULL");
  db.pragma("cache_size = -4096");
  db.transaction(() => {
    const version = db.pragma("user_version", { simple: true }) as number;
    const applicationId = db.pragma("application_id", { simple: true }) as number;
    const tables = db.prepare("SELECT count(*) FROM sqlite_schema").pluck().get() as number;
    if (version === 0 && applicationId === 0 && tables === 0) {
      db.exec(format.schema);
      db.pragma(`application_id = ${format.applicationId}`);
      db.pragma(`user_version = ${format.version}`);
    } else if (applicationId !== format.applicationId) {
      throw new CastoreError(
        "invalid_argument",
        `Cannot use database "${path}": expected application id ${format.applicationId}, found ${applicationId}`,
      );
    } else if (version !== format.version) {
      throw new CastoreError(
        "invalid_argument",
        `Cannot use database "${path}": expected schema version ${format.version}, found ${version}`,
      );
    }
  }).immediate();
}

/**
 * Lets reads on a connection wait for a lock, which they meet only while another process opens or
 * recovers the database. Not for a connection that writes: waiting blocks the event loop.
 */
export function waitForLocks(db: Database): void {
  db.pragma("busy_timeout = 5000");
}

/**
 * Begins a write transaction, without blocking the event loop while another process holds the lock.
 * The caller ends it with `COMMIT` or `ROLLBACK`, and uses the connection for nothing else meanwhile.
 *
 * @throws CastoreError `unavailable` if the lock is not free within 30 seconds
 */
export async function beginWrite(db: Database, options?: AbortOptions): Promise<void> {
  await retryWhileBusy(() => db.exec("BEGIN IMMEDIATE"), options);
}

/** Ends a write transaction without effect. For error paths: never throws. */
export function rollback(db: Database): void {
  if (db.open && db.inTransaction) db.exec("ROLLBACK");
}

async function retryWhileBusy<T>(action: () => T, options?: AbortOptions): Promise<T> {
  const deadline = performance.now() + LOCK_TIMEOUT_MS;
  for (;;) {
    options?.signal?.throwIfAborted();
    try {
      return action();
    } catch (error) {
      if (!isBusy(error) || performance.now() >= deadline) throw error;
    }
    await sleep(LOCK_POLL_MS, undefined, { signal: options?.signal }).catch(() => undefined);
  }
}

function isBusy(error: unknown): boolean {
  return error instanceof Sqlite.SqliteError && error.code.startsWith("SQLITE_BUSY");
}

const CODES: readonly (readonly [prefix: string, code: ErrorCode])[] = [
  ["SQLITE_BUSY", "unavailable"],
  ["SQLITE_LOCKED", "unavailable"],
  ["SQLITE_FULL", "resource_exhausted"],
  ["SQLITE_CORRUPT", "data_loss"],
  ["SQLITE_NOTADB", "data_loss"],
  ["SQLITE_CANTOPEN", "unavailable"],
  ["SQLITE_READONLY", "permission_denied"],
  ["SQLITE_PERM", "permission_denied"],
  ["SQLITE_IOERR", "unavailable"],
];

/** Turns whatever SQLite threw into a CastoreError by cause; passes on everything else. */
export function sqliteError(error: unknown, action: string): unknown {
  if (!(error instanceof Sqlite.SqliteError)) return error;
  const code = CODES.find(([prefix]) => error.code.startsWith(prefix))?.[1] ?? "internal";
  return new CastoreError(code, `${action}: ${error.message} (${error.code})`, { cause: error });
}

/** Makes entries that were created in a folder durable. */
export function syncFolder(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
