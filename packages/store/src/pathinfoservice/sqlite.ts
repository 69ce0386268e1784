import { setImmediate as yieldToEvents } from "node:timers/promises";
import { type AbortOptions, CastoreError, equalBytes } from "@tvix/castore";
import { KeyValueTable, type Row } from "@tvix/castore/sqlite";
import { decodePathInfo, encodePathInfo } from "../convert.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { expectHashPart } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import type { PathInfoService } from "./path-info-service.ts";

/** What {@link SqlitePathInfoService.open} is told. */
export interface SqlitePathInfoOptions extends AbortOptions {
  /** The database file, or `":memory:"` for a temporary one. */
  path: string;
  /** Is told of damaged rows that were met. Default: a process warning. */
  onCorrupt?: (message: string) => void;
}

/** "TvxP": the application id of these databases. */
const APPLICATION_ID = 0x54767850;

/** How many rows a listing reads at a time. */
const PAGE_SIZE = 500;

/**
 * Keeps PathInfos in a SQLite database: one table `path_infos` from hash part to encoded message.
 */
export class SqlitePathInfoService implements PathInfoService {
  readonly #table: KeyValueTable;
  readonly #onCorrupt: (message: string) => void;

  private constructor(table: KeyValueTable, onCorrupt: (message: string) => void) {
    this.#table = table;
    this.#onCorrupt = onCorrupt;
  }

  /**
   * Opens a database, or creates it.
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
      signal: options.signal,
    });
    return new SqlitePathInfoService(
      table,
      options.onCorrupt ?? ((message) => process.emitWarning(message)),
    );
  }

  async get(hashPart: Uint8Array, options?: AbortOptions): Promise<PathInfo | undefined> {
    options?.signal?.throwIfAborted();
    expectHashPart(hashPart);
    const data = this.#table.get(hashPart);
    return data && this.#decode([hashPart, data]);
  }

  async put(pathInfo: PathInfo, options?: AbortOptions): Promise<PathInfo> {
    options?.signal?.throwIfAborted();
    const row: Row = [pathInfo.storePath.hashPart, encodePathInfo(pathInfo)];
    await this.#table.put([row], options);
    return pathInfo;
  }

  async *list(options?: AbortOptions): AsyncGenerator<PathInfo> {
    let after: Uint8Array = new Uint8Array(0);
    options?.signal?.throwIfAborted();
    for (;;) {
      const rows = this.#table.page(after, PAGE_SIZE);
      for (const row of rows) {
        options?.signal?.throwIfAborted();
        const pathInfo = this.#decode(row);
        if (pathInfo !== undefined) yield pathInfo;
      }
      if (rows.length < PAGE_SIZE) return;
      after = rows.at(-1)![0];
      await yieldToEvents();
      options?.signal?.throwIfAborted();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#table[Symbol.asyncDispose]();
  }

  /**
   * The PathInfo in a row; `undefined` for a damaged one, which is reported. It is left where it is:
   * putting replaces it.
   */
  #decode([hashPart, data]: Row): PathInfo | undefined {
    let found: string;
    try {
      const pathInfo = decodePathInfo(data);
      if (equalBytes(pathInfo.storePath.hashPart, hashPart)) return pathInfo;
      found = `it is that of ${pathInfo.storePath}`;
    } catch (error) {
      if (!(error instanceof CastoreError)) throw error;
      found = error.message;
    }
    this.#onCorrupt(`Cannot use the PathInfo stored for ${encodeNixbase32(hashPart)}: ${found}`);
    return undefined;
  }
}
