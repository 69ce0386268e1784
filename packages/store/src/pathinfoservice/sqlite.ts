import { setImmediate as yieldToEvents } from "node:timers/promises";
import {
  type AbortOptions,
  CastoreError,
  equalBytes,
  type Measured,
  type StoreStatistics,
} from "@tvix/castore";
import { databaseSize, KeyValueTable, type Row } from "@tvix/castore/sqlite";
import { decodePathInfo, encodePathInfo } from "../convert.ts";
import { StoreError } from "../errors.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { expectHashPart } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import { mergeSignatures } from "./merge-signatures.ts";
import { eachOf, PathInfoPage, type ValidPathInfo, validated } from "./path-info-page.ts";
import type { ListPathInfosOptions, PathInfoService } from "./path-info-service.ts";

/** Options of {@link SqlitePathInfoService.open}. */
export interface SqlitePathInfoOptions extends AbortOptions {
  /** The database file, or `":memory:"` for a temporary one. */
  path: string;
  /** Called for each damaged row that is read. Default: emits a process warning. */
  onCorrupt?: (message: string) => void;
}

/** "TvxP": the application id of these databases. */
const APPLICATION_ID = 0x54767850;

/** How many rows are looked up, and how many are listed, before other events get their turn. */
const LOOKUPS_PER_TURN = 100;
const PAGE_LENGTH = 500;

/**
 * Stores PathInfos in a SQLite database, in one table `path_infos` from hash part to encoded message.
 */
export class SqlitePathInfoService implements PathInfoService, Measured {
  readonly #table: KeyValueTable;
  readonly #path: string;
  readonly #onCorrupt: (message: string) => void;

  private constructor(table: KeyValueTable, path: string, onCorrupt: (message: string) => void) {
    this.#table = table;
    this.#path = path;
    this.#onCorrupt = onCorrupt;
  }

  /**
   * Opens a database. Creates it if it does not exist.
   *
   * @throws CastoreError `invalid_argument` for a file of another kind, `data_loss` for a damaged one,
   *   `unavailable` while another process holds it
   */
  static async open(options: SqlitePathInfoOptions): Promise<SqlitePathInfoService> {
    const table = await KeyValueTable.open({
      path: options.path,
      applicationId: APPLICATION_ID,
      table: "path_infos",
      keyColumn: "hash_part",
      merge: mergeRows,
      isSeenEarly: true, // what refers to a path info is in the same log, behind it
      signal: options.signal,
    });
    return new SqlitePathInfoService(
      table,
      options.path,
      options.onCorrupt ?? ((message) => process.emitWarning(message)),
    );
  }

  /** Returns how much the database holds. */
  async statistics(): Promise<StoreStatistics> {
    return await databaseSize(this.#path);
  }

  async get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    options?.signal?.throwIfAborted();
    expectHashPart(hashPart);
    return this.#get(hashPart);
  }

  async getMany(
    hashParts: readonly Uint8Array[],
    options?: AbortOptions,
  ): Promise<(PathInfo | undefined)[]> {
    options?.signal?.throwIfAborted();
    hashParts.forEach(expectHashPart);
    const found: (PathInfo | undefined)[] = [];
    for (const hashPart of hashParts) {
      if (found.length > 0 && found.length % LOOKUPS_PER_TURN === 0) {
        await yieldToEvents();
        options?.signal?.throwIfAborted();
      }
      found.push(this.#get(hashPart));
    }
    return found;
  }

  async put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo> {
    options?.signal?.throwIfAborted();
    const { hashPart } = pathInfo.storePath;
    const data = encodePathInfo(pathInfo);
    await this.#table.put([[hashPart, data]], options);
    const stored = this.#table.get(hashPart);
    if (stored === undefined || equalBytes(stored, data)) return pathInfo;
    return this.#decode([hashPart, stored]) ?? pathInfo;
  }

  list(options?: ListPathInfosOptions): AsyncIterable<PathInfo> {
    return eachOf(this.listPages(options), options?.signal);
  }

  async *listPages({ after, signal }: ListPathInfosOptions = {}): AsyncGenerator<PathInfoPage> {
    signal?.throwIfAborted();
    if (after !== undefined) expectHashPart(after);
    let cursor = after ?? new Uint8Array(0);
    for (;;) {
      const rows = this.#table.page(cursor, PAGE_LENGTH);
      if (rows.length === 0) return;
      const page: (PathInfo | ValidPathInfo)[] = [];
      for (const row of rows) {
        const [hashPart, data] = row;
        const usable = validated(data, hashPart) ?? this.#decode(row);
        if (usable !== undefined) page.push(usable);
      }
      cursor = rows.at(-1)![0];
      if (page.length > 0) yield PathInfoPage.of(page);
      await yieldToEvents();
      signal?.throwIfAborted();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#table[Symbol.asyncDispose]();
  }

  #get(hashPart: Uint8Array): PathInfo | undefined {
    const data = this.#table.get(hashPart);
    return data && this.#decode([hashPart, data]);
  }

  /** Returns the PathInfo in a row; `undefined` for a damaged row, which is reported, and replaced by the next put. */
  #decode(row: Row): PathInfo | undefined {
    try {
      return decodeRow(row);
    } catch (error) {
      if (!(error instanceof CastoreError)) throw error;
      const [hashPart] = row;
      const text = encodeNixbase32(hashPart);
      this.#onCorrupt(`Cannot use the PathInfo stored for ${text}: ${error.message}`);
      return undefined;
    }
  }
}

/** @throws CastoreError for a damaged row */
function decodeRow([hashPart, data]: Row): PathInfo {
  const pathInfo = decodePathInfo(data);
  if (equalBytes(pathInfo.storePath.hashPart, hashPart)) return pathInfo;
  throw new StoreError("data_loss", `it is that of ${pathInfo.storePath}`);
}

/** Returns what takes the place of a stored row: the given one, with the signatures of the stored one. */
function mergeRows(stored: Uint8Array, given: Uint8Array): Uint8Array {
  const pathInfo = decodePathInfo(given);
  let known: PathInfo;
  try {
    known = decodeRow([pathInfo.storePath.hashPart, stored]);
  } catch (error) {
    if (!(error instanceof CastoreError)) throw error;
    return given; // in place of a damaged row
  }
  return encodePathInfo(mergeSignatures(known, pathInfo));
}
