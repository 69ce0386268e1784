import { mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError, type ErrorCode } from "../model/errors.ts";
import { systemError } from "../model/system-error.ts";
import { keepRoom, openInReserve } from "./reserve.ts";
import { syncFolder } from "./sync-folder.ts";

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

/** Options of {@link openDatabase}. */
export interface OpenDatabaseOptions extends AbortOptions {
  /**
   * Fills a database that has no schema yet, in the transaction that creates it: others wait, and when it rejects,
   * nothing is created. Default: it stays empty.
   */
  fill?: (db: Database) => Promise<void>;
}

/** How long a writer waits for another process to finish before it gives up. */
const LOCK_TIMEOUT_MS = 30_000;
const LOCK_POLL_MS = 5;

/** Longest write-ahead log that is kept once it is of no more use, in bytes: a large transaction makes a longer one. */
const LOG_BYTES = 64 * 1024 * 1024;

const IN_MEMORY = ":memory:";

/**
 * Opens a database, or creates it together with the folders above it. A file that is empty, or has no schema, is
 * created anew. Commits are durable when they return (write-ahead log, synchronous FULL), and several processes may
 * use the same file. It is opened on a full disk, too, and to be closed with {@link closeDatabase}.
 *
 * @param path a file, or `":memory:"` for a temporary one
 * @throws CastoreError `invalid_argument` for a file of another kind or a newer version, `data_loss`
 *   for one that is damaged, `unavailable` while another process holds it, `resource_exhausted` if there is no room
 */
export async function openDatabase(
  path: string,
  format: DatabaseFormat,
  options?: OpenDatabaseOptions,
): Promise<Database> {
  try {
    if (path === IN_MEMORY) return await initialize(await connect(path, options), format, options);
    mkdirSync(dirname(path), { recursive: true });
    const connected = await openInReserve(path, () => connect(path, options));
    const db = await initialize(connected, format, options);
    keepRoom(path);
    return db;
  } catch (error) {
    const action = `Cannot open database "${path}"`;
    throw systemError(sqliteError(error, action), action);
  }
}

/** Closes a database. What was changed and not committed is undone. */
export function closeDatabase(db: Database): void {
  const { name, memory } = db;
  db.close();
  if (!memory) keepRoom(name);
}

/** Connects to a database and begins a write transaction, with which all files are there that SQLite needs. */
async function connect(path: string, options?: AbortOptions): Promise<Database> {
  const db = new Sqlite(path, { timeout: 0 });
  try {
    await retryWhileBusy(() => db.pragma("journal_mode = WAL"), options);
    db.pragma("synchronous = FULL");
    db.pragma("cache_size = -4096");
    db.pragma(`journal_size_limit = ${LOG_BYTES}`);
    await beginWrite(db, options);
    if (path !== IN_MEMORY) syncFolder(dirname(path));
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** Checks what a database is, creates it if it has no schema, and ends the transaction. */
async function initialize(
  db: Database,
  format: DatabaseFormat,
  options?: OpenDatabaseOptions,
): Promise<Database> {
  try {
    const number = (sql: string) => db.prepare(sql).pluck().get() as number;
    const applicationId = number("PRAGMA application_id");
    const version = number("PRAGMA user_version");
    const isNew =
      number("SELECT count(*) FROM sqlite_schema") === 0 &&
      [0, format.applicationId].includes(applicationId) &&
      [0, format.version].includes(version);
    const { name: path } = db;
    if (isNew) {
      db.exec(format.schema);
      db.pragma(`application_id = ${format.applicationId}`);
      db.pragma(`user_version = ${format.version}`);
      await options?.fill?.(db);
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
    commit(db);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
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

/**
 * Ends a write transaction: its changes are durable when it returns.
 *
 * Now and then SQLite moves the log into the database after that, and begins it anew with the next commit, whenever
 * that is. If it were damaged until then, its beginning would hide what has been moved, of which parts may be much
 * older. So it is begun anew at once.
 */
export function commit(db: Database): void {
  db.exec("COMMIT");
  if (db.memory) return;
  try {
    if (statSync(db.name).mtimeMs < statSync(`${db.name}-wal`).mtimeMs) return;
    db.exec("BEGIN IMMEDIATE");
    db.pragma(`user_version = ${db.pragma("user_version", { simple: true })}`); // as good as any other page
    db.exec("COMMIT");
  } catch {
    rollback(db); // whoever is next begins it anew
  }
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
  ["SQLITE_IOERR_SHMSIZE", "resource_exhausted"], // no room for the index of the write-ahead log
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
