import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError, type ErrorCode } from "../model/errors.ts";
import { systemError } from "../model/system-error.ts";
import { makeFolder } from "./make-folder.ts";
import { keepRoom, openInReserve } from "./reserve.ts";
import { connectSqlite, type Database, isSqliteError } from "./sqlite.ts";
import { syncFolder } from "./sync-folder.ts";

/** Format of a database. */
export interface DatabaseFormat {
  /** SQLite application id, which identifies the format: a signed 32-bit integer. */
  applicationId: number;
  /** Version of the schema, at least 1. */
  version: number;
  /** SQL that creates the schema in an empty database. */
  schema: string;
  /** Upgrades from an earlier version to the one behind it, by the earlier one, run in one transaction. Default: none. */
  upgrades?: Readonly<Record<number, (db: Database) => Promise<void>>>;
  /** Advice for the error about another version, for the user. Default: none. */
  remedy?: string;
}

/** Options of {@link openDatabase}. */
export interface OpenDatabaseOptions extends AbortOptions {
  /**
   * Fills a new database in the transaction that creates its schema: other processes wait, and if it rejects, nothing
   * is created. Default: the database stays empty.
   */
  fill?: (db: Database) => Promise<void>;
  /**
   * Completes a database that is there, in a transaction, before it is used: other processes wait. Not called where it can
   * only be read. Default: it is complete.
   */
  complete?: (db: Database) => Promise<void>;
}

/** Time that a writer waits for a lock of another process, in milliseconds. */
const LOCK_TIMEOUT_MS = 30_000;
const LOCK_POLL_MS = 5;

/**
 * Length to which the write-ahead log is truncated after a checkpoint, in bytes. A large transaction makes it longer.
 */
const LOG_BYTES = 64 * 1024 * 1024;

/** How much of a database a connection keeps in memory, in KiB: the system has the rest in its own. */
const CACHE_KIB = 1024;

/** From how many pages on, of 4 KiB, a transaction writes some of its changes before its end. */
const SPILL_PAGES = 1000;

/** Longest read-only database that is read into memory, in bytes: the limit of `readFile` in Node.js. */
const MAX_READ_BYTES = 2 ** 31 - 1;

/** Number of attempts to read it while another process changes it. */
const READ_ATTEMPTS = 5;

/** Offsets of the write and read versions in the header: 2 with a write-ahead log, 1 without. */
const JOURNAL_MODE_AT = 18;

const IN_MEMORY = ":memory:";

/** Paths of the databases that were read into memory. */
const COPIED_FROM = new WeakMap<Database, string>();

/**
 * Opens a database, or creates it with its parent folders. A file that is empty or has no schema is initialized.
 * Commits are durable when they return (write-ahead log, synchronous FULL), and several processes may
 * use the same file. It can be opened on a full disk. The caller closes it with {@link closeDatabase}.
 *
 * Without write permission, or on a read-only file system, it is opened for reading: writes fail with
 * `permission_denied`. Unless another process has it open, it is then read into memory, because SQLite cannot create
 * its auxiliary files.
 *
 * @param path a file, or `":memory:"` for a temporary one
 * @throws CastoreError `invalid_argument` for a file of another kind or version, `data_loss` for one that is damaged,
 *   `unavailable` while another process holds it, `resource_exhausted` if there is no room, `permission_denied` if it
 *   can neither be written nor read
 */
export async function openDatabase(
  path: string,
  format: DatabaseFormat,
  options?: OpenDatabaseOptions,
): Promise<Database> {
  try {
    if (path === IN_MEMORY) return await initialize(await connect(path, options), format, options);
    await makeFolder(dirname(path));
    const connected = await openInReserve(path, () => connect(path, options));
    const db = await initialize(connected, format, options);
    keepRoom(path);
    return db;
  } catch (error) {
    const action = `Cannot open database "${path}"`;
    try {
      if (isRefused(error)) return await openReadOnly(path, format);
    } catch (readError) {
      throw systemError(sqliteError(readError, action), action);
    }
    throw systemError(sqliteError(error, action), action);
  }
}

/** Tells whether an error is that SQLite cannot open a file, or may not write to it. */
function isRefused(error: unknown): boolean {
  if (!isSqliteError(error)) return false;
  return /^SQLITE_(READONLY|CANTOPEN|PERM)/.test(error.code);
}

/** Opens an existing database for reading. */
async function openReadOnly(path: string, format: DatabaseFormat): Promise<Database> {
  const db = await connectReadOnly(path);
  try {
    if (isNew(db, format)) {
      const reason = "expected a schema, found none, and it cannot be written";
      throw new CastoreError("permission_denied", `Cannot create database "${path}": ${reason}`);
    }
    expectFormat(db, format);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

async function connectReadOnly(path: string): Promise<Database> {
  for (let attempt = 1; ; attempt++) {
    const before = statOf(path);
    if (!before?.isFile()) {
      const [code, found] = before
        ? (["invalid_argument", "something else"] as const)
        : (["permission_denied", "none, and it cannot be created"] as const);
      throw new CastoreError(
        code,
        `Cannot open database "${path}": expected a file, found ${found}`,
      );
    }
    // SQLite can read it if another process has created the files of the write-ahead log.
    if (statOf(`${path}-wal`)?.size) {
      const db = connectSqlite(path, { readonly: true, fileMustExist: true });
      waitForLocks(db);
      return db;
    }
    if (before.size > MAX_READ_BYTES) {
      const reason = `expected at most ${MAX_READ_BYTES} bytes without permission to write, found ${before.size}`;
      throw new CastoreError("resource_exhausted", `Cannot open database "${path}": ${reason}`);
    }
    const bytes = await readFile(path);
    const after = statOf(path);
    const isChanged = after?.mtimeMs !== before.mtimeMs || statOf(`${path}-wal`)?.size;
    if (isChanged && attempt < READ_ATTEMPTS) continue;
    bytes.fill(1, JOURNAL_MODE_AT, JOURNAL_MODE_AT + 2);
    const db = connectSqlite(bytes, { readonly: true });
    COPIED_FROM.set(db, path);
    return db;
  }
}

/**
 * Opens another connection, for reading alone, to a database that this process has open: for another thread.
 *
 * @throws CastoreError as {@link openDatabase}
 */
export function openReader(path: string): Database {
  try {
    const db = connectSqlite(path, { readonly: true, fileMustExist: true });
    waitForLocks(db);
    db.pragma("schema_version"); // only now SQLite opens what stands beside the file
    return db;
  } catch (error) {
    throw sqliteError(error, `Cannot open database "${path}"`);
  }
}

/**
 * Opens a database that belongs to another program, for reading alone. It may be written meanwhile. Closed with
 * {@link closeDatabase}.
 *
 * @throws CastoreError `not_found` if there is no such file, `permission_denied` if it cannot be read; as
 *   {@link openDatabase}
 */
export async function openForeignDatabase(path: string): Promise<Database> {
  const action = `Cannot open database "${path}"`;
  if (statOf(path) === undefined) {
    throw new CastoreError("not_found", `${action}: there is no such file`);
  }
  try {
    return openReader(path);
  } catch (error) {
    if (!(error instanceof CastoreError) || !isRefused(error.cause)) throw error;
  }
  try {
    return await connectReadOnly(path);
  } catch (error) {
    throw systemError(sqliteError(error, action), action);
  }
}

/** Returns the path of a database, also of one that was read into memory. */
export function pathOf(db: Database): string {
  return COPIED_FROM.get(db) ?? db.name;
}

function statOf(path: string) {
  return statSync(path, { throwIfNoEntry: false });
}

/** Closes a database. Uncommitted changes are rolled back. */
export function closeDatabase(db: Database): void {
  const { name, memory, readonly } = db;
  db.close();
  if (!memory && !readonly) keepRoom(name);
}

/** Connects to a database and begins a write transaction, which creates all files that SQLite needs. */
async function connect(path: string, options?: AbortOptions): Promise<Database> {
  const db = connectSqlite(path, { timeout: 0 });
  try {
    await retryWhileBusy(() => db.pragma("journal_mode = WAL"), options);
    db.pragma("synchronous = FULL");
    db.pragma(`cache_size = -${CACHE_KIB}`);
    db.pragma(`cache_spill = ${SPILL_PAGES}`);
    db.pragma(`journal_size_limit = ${LOG_BYTES}`);
    await beginWrite(db, options);
    if (path !== IN_MEMORY) syncFolder(dirname(path));
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** Checks the format of a database, initializes one without a schema, and ends the transaction. */
async function initialize(
  db: Database,
  format: DatabaseFormat,
  options?: OpenDatabaseOptions,
): Promise<Database> {
  try {
    const isFilled = !isNew(db, format);
    if (isFilled) {
      await upgrade(db, format);
    } else {
      db.exec(format.schema);
      db.pragma(`application_id = ${format.applicationId}`);
      db.pragma(`user_version = ${format.version}`);
      await options?.fill?.(db);
    }
    expectFormat(db, format);
    if (isFilled) await options?.complete?.(db);
    commit(db);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** Upgrades a database of an earlier version, if there is an upgrade. */
async function upgrade(
  db: Database,
  { applicationId, version, upgrades }: DatabaseFormat,
): Promise<void> {
  const found = formatOf(db);
  const isUpgradable = found.version < version && upgrades?.[found.version] !== undefined;
  if (found.applicationId !== applicationId || !isUpgradable) return;
  for (let from = found.version; from < version; from++) await upgrades[from]!(db);
  db.pragma(`user_version = ${version}`);
}

/** Tells whether a database has no schema, and can be initialized. */
function isNew(db: Database, { applicationId, version }: DatabaseFormat): boolean {
  const found = formatOf(db);
  return (
    db.prepare("SELECT count(*) FROM sqlite_schema").pluck().get() === 0 &&
    [0, applicationId].includes(found.applicationId) &&
    [0, version].includes(found.version)
  );
}

function expectFormat(db: Database, { applicationId, version, remedy }: DatabaseFormat): void {
  const found = formatOf(db);
  const cannot = `Cannot use database "${pathOf(db)}"`;
  if (found.applicationId !== applicationId) {
    const reason = `expected application id ${applicationId}, found ${found.applicationId}`;
    throw new CastoreError("invalid_argument", `${cannot}: ${reason}`);
  }
  if (found.version !== version) {
    const reason = `expected schema version ${version}, found ${found.version}`;
    const advice = remedy === undefined ? "" : `. ${remedy}`;
    throw new CastoreError("invalid_argument", `${cannot}: ${reason}${advice}`);
  }
}

function formatOf(db: Database): { applicationId: number; version: number } {
  const number = (pragma: string) => db.pragma(pragma, { simple: true }) as number;
  return { applicationId: number("application_id"), version: number("user_version") };
}

/**
 * Makes reads on a connection wait for a lock, which another process holds only while it opens or recovers the
 * database. Not for a connection that writes: the wait blocks the event loop.
 */
export function waitForLocks(db: Database): void {
  db.pragma("busy_timeout = 5000");
}

/**
 * Begins a write transaction, without blocking the event loop while another process holds the lock.
 * The caller ends it with `COMMIT` or `ROLLBACK`, and does not use the connection otherwise until then.
 *
 * @throws CastoreError `unavailable` if the lock is not free within 30 seconds
 */
export async function beginWrite(db: Database, options?: AbortOptions): Promise<void> {
  await retryWhileBusy(() => db.exec("BEGIN IMMEDIATE"), options);
}

/**
 * Ends a write transaction: its changes are durable when it returns.
 *
 * After some commits SQLite runs a checkpoint, which copies the log to the database; only the next commit restarts the
 * log. Damage to the log before that would hide checkpointed pages behind older ones. So the log is restarted at once.
 */
export function commit(db: Database): void {
  db.exec("COMMIT");
  if (db.memory) return;
  try {
    if (statSync(db.name).mtimeMs < statSync(`${db.name}-wal`).mtimeMs) return;
    db.exec("BEGIN IMMEDIATE");
    db.pragma(`user_version = ${db.pragma("user_version", { simple: true })}`); // writes one page
    db.exec("COMMIT");
  } catch {
    rollback(db); // the next writer restarts the log
  }
}

/** Rolls back a write transaction. For error paths: never throws. */
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

/** Tells whether an error is that another process holds a lock. */
export function isBusy(error: unknown): boolean {
  return isSqliteError(error) && error.code.startsWith("SQLITE_BUSY");
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

/** Converts an error of SQLite to a CastoreError by its code; returns any other error unchanged. */
export function sqliteError(error: unknown, action: string): unknown {
  if (!isSqliteError(error)) return error;
  const code = CODES.find(([prefix]) => error.code.startsWith(prefix))?.[1] ?? "internal";
  return new CastoreError(code, `${action}: ${error.message} (${error.code})`, { cause: error });
}
