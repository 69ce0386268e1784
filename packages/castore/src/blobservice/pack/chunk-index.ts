import { join } from "node:path";
import {
  closeDatabase,
  type Database,
  type DatabaseFormat,
  type OpenDatabaseOptions,
  openDatabase,
  sqliteError,
  waitForLocks,
} from "../../disk/database.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_CHUNK_BYTES } from "../../model/limits.ts";
import { ChunkList } from "../chunk-list.ts";
import type { Codec } from "./format.ts";

/** Where a chunk is, and how it is stored. Sizes and offsets in bytes. */
export interface ChunkLocation {
  readonly pack: number;
  /** Where its payload starts. */
  readonly offset: number;
  readonly storedSize: number;
  readonly size: number;
  readonly codec: Codec;
}

/** "TvxB": the application id of these databases. */
const APPLICATION_ID = 0x54767842;

const SCHEMA = `
  CREATE TABLE packs (
    id INTEGER PRIMARY KEY,
    size INTEGER NOT NULL
  );
  -- live: whether a blob uses the chunk. Others were stored for a blob that was never finished.
  CREATE TABLE chunks (
    digest BLOB PRIMARY KEY,
    pack INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    stored_size INTEGER NOT NULL,
    size INTEGER NOT NULL,
    codec INTEGER NOT NULL,
    live INTEGER NOT NULL
  ) WITHOUT ROWID;
  -- Blobs of two or more chunks: digest and length (32-bit little-endian) of each. A blob of one chunk
  -- is that chunk.
  CREATE TABLE blobs (
    digest BLOB PRIMARY KEY,
    chunks BLOB NOT NULL
  ) WITHOUT ROWID;
`;

/** What the database is. */
export const INDEX_FORMAT: DatabaseFormat = {
  applicationId: APPLICATION_ID,
  version: 1,
  schema: SCHEMA,
};

/** The file of the index in the folder of a store. */
export function indexPath(folder: string): string {
  return join(folder, "index.sqlite");
}

type LocationRow = [pack: number, offset: number, storedSize: number, size: number, codec: Codec];

/** Whether a chunk is stored, and used by a blob. */
export type ChunkState = "live" | "unused" | "absent";

/** Looks up, in the SQLite database, where chunks are and what blobs are made of. */
export class ChunkIndex implements Disposable {
  readonly #db: Database;
  readonly #state;
  readonly #chunk;
  readonly #blob;
  readonly #hasBlob;

  /** @param db a connection to an index */
  constructor(db: Database) {
    this.#db = db;
    this.#state = db
      .prepare<[Uint8Array], 0 | 1>("SELECT live FROM chunks WHERE digest = ?")
      .pluck();
    this.#chunk = db
      .prepare<[Uint8Array], LocationRow>(
        `SELECT pack, "offset", stored_size, size, codec FROM chunks WHERE digest = ? AND live`,
      )
      .raw();
    this.#blob = db
      .prepare<[Uint8Array], Buffer>("SELECT chunks FROM blobs WHERE digest = ?")
      .pluck();
    this.#hasBlob = db.prepare<[Uint8Array], 1>("SELECT 1 FROM blobs WHERE digest = ?").pluck();
  }

  /**
   * Opens the index in a folder, or creates it.
   *
   * @throws CastoreError as `openDatabase`
   */
  static async open(folder: string, options?: OpenDatabaseOptions): Promise<ChunkIndex> {
    const db = await openDatabase(indexPath(folder), INDEX_FORMAT, options);
    waitForLocks(db);
    return new ChunkIndex(db);
  }

  stateOf(digest: B3Digest): ChunkState {
    const live = this.#try(() => this.#state.get(digest.bytes));
    if (live === undefined) return "absent";
    return live === 1 ? "live" : "unused";
  }

  /**
   * Where a chunk is that some blob uses; `undefined` if there is none of that digest.
   *
   * @throws CastoreError `data_loss` if the index is damaged
   */
  findChunk(digest: B3Digest): ChunkLocation | undefined {
    const row = this.#try(() => this.#chunk.get(digest.bytes));
    if (row === undefined) return undefined;
    const [pack, offset, storedSize, size, codec] = row;
    const isPossible = row.every((number) => Number.isSafeInteger(number) && number >= 0);
    if (!isPossible || storedSize > MAX_CHUNK_BYTES || size > MAX_CHUNK_BYTES) {
      throw new CastoreError(
        "data_loss",
        `Cannot use database "${this.#db.name}": the row of chunk ${digest} is damaged`,
      );
    }
    return { pack, offset, storedSize, size, codec };
  }

  /** The chunks of a blob that has two or more; `undefined` if there is none of that digest. */
  findBlob(digest: B3Digest): ChunkList | undefined {
    const list = this.#try(() => this.#blob.get(digest.bytes));
    return list && ChunkList.fromBytes(list);
  }

  /** Whether a blob of two or more chunks is there. */
  hasBlob(digest: B3Digest): boolean {
    return this.#try(() => this.#hasBlob.get(digest.bytes) !== undefined);
  }

  [Symbol.dispose](): void {
    closeDatabase(this.#db);
  }

  #try<T>(query: () => T): T {
    try {
      return query();
    } catch (error) {
      throw sqliteError(error, `Cannot read from database "${this.#db.name}"`);
    }
  }
}
