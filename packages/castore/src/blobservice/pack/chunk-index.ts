import { join } from "node:path";
import { setImmediate as yieldToEvents } from "node:timers/promises";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import {
  closeDatabase,
  type DatabaseFormat,
  type OpenDatabaseOptions,
  openDatabase,
  pathOf,
  sqliteError,
  waitForLocks,
} from "../../disk/database.ts";
import type { Database } from "../../disk/sqlite.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_CHUNK_BYTES } from "../../model/limits.ts";
import type { BlobStat } from "../blob-service.ts";
import type { ChunkList } from "../chunk-list.ts";
import type { Codec } from "./format.ts";
import { ListWriter, StoredLists } from "./stored-lists.ts";

/** Where a chunk is, and how it is stored. Sizes and offsets in bytes. */
export interface ChunkLocation {
  readonly pack: number;
  /** Where its payload starts. */
  readonly offset: number;
  readonly storedSize: number;
  readonly size: number;
  readonly codec: Codec;
  /** `payloadChecksum` of its payload; `NO_CHECKSUM` where that is not known. */
  readonly checksum: number;
}

/** After how many rows of a list other events get their turn. */
const ROWS_PER_TURN = 4;

/** "TvxB": the application id of these databases. */
const APPLICATION_ID = 0x54767842;

const SCHEMA = `
  CREATE TABLE packs (
    id INTEGER PRIMARY KEY,
    size INTEGER NOT NULL
  );
  -- live: whether a blob uses the chunk. Others were stored for a blob that was never finished.
  -- checksum: the CRC-32 of the payload and one; 0 where it was not verified.
  CREATE TABLE chunks (
    digest BLOB PRIMARY KEY,
    pack INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    stored_size INTEGER NOT NULL,
    size INTEGER NOT NULL,
    codec INTEGER NOT NULL,
    live INTEGER NOT NULL,
    checksum INTEGER NOT NULL DEFAULT 0
  ) WITHOUT ROWID;
`;

const BLOBS_SCHEMA = `
  -- Blobs of two or more chunks: length, number of chunks, BLAKE3 of the packed list. A blob of one chunk is that
  -- chunk.
  CREATE TABLE blobs (
    digest BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    count INTEGER NOT NULL,
    list BLOB NOT NULL
  ) WITHOUT ROWID;
  -- Their chunks, packed, 4,096 to a row: digest and length (32-bit little-endian) of each. first: index of the first
  -- chunk in the row.
  CREATE TABLE lists (
    digest BLOB NOT NULL,
    first INTEGER NOT NULL,
    chunks BLOB NOT NULL,
    PRIMARY KEY (digest, first)
  ) WITHOUT ROWID;
`;

/** The format of the index. */
export const INDEX_FORMAT: DatabaseFormat = {
  applicationId: APPLICATION_ID,
  version: 3,
  upgrades: { 1: splitLists, 2: addChecksums },
  remedy: "Remove it to have it made anew from the packs",
  schema: SCHEMA + BLOBS_SCHEMA,
};

/** Upgrades an index of version 1, which holds each list of chunks in one row. A list that is damaged is left out. */
async function splitLists(db: Database): Promise<void> {
  db.exec(`ALTER TABLE blobs RENAME TO whole_lists; ${BLOBS_SCHEMA}`);
  const lists = new ListWriter(db);
  const next = db
    .prepare<[Uint8Array], [Uint8Array, Uint8Array]>(
      "SELECT digest, chunks FROM whole_lists WHERE digest > ? ORDER BY digest LIMIT 1",
    )
    .raw();
  for (let row = next.get(new Uint8Array(0)); row !== undefined; row = next.get(row[0])) {
    try {
      lists.add(B3Digest.fromBytes(row[0]), row[1]);
    } catch (error) {
      if (!(error instanceof CastoreError)) throw error; // such a blob was absent before, too
    }
    await yieldToEvents();
  }
  db.exec("DROP TABLE whole_lists");
}

/** Upgrades an index of version 2, which has no checksums of payloads. */
async function addChecksums(db: Database): Promise<void> {
  db.exec("ALTER TABLE chunks ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0");
}

/** The file of the index in the folder of a store. */
export function indexPath(folder: string): string {
  return join(folder, "index.sqlite");
}

type LocationRow = [
  pack: number,
  offset: number,
  storedSize: number,
  size: number,
  codec: Codec,
  checksum: number,
];

/** Tells whether a chunk is stored, and whether a blob uses it. */
export type ChunkState = "live" | "unused" | "absent";

/** Looks up, in the SQLite database, where chunks are and what blobs are made of. */
export class ChunkIndex implements Disposable {
  readonly #db: Database;
  readonly #state;
  readonly #chunk;
  readonly #any;
  readonly #begin;
  readonly #commit;
  readonly #lists: StoredLists;

  /** @param db a connection to an index */
  constructor(db: Database) {
    this.#db = db;
    this.#any = db.prepare<[], 1>("SELECT 1 FROM chunks LIMIT 1").pluck();
    this.#begin = db.prepare<[]>("BEGIN");
    this.#commit = db.prepare<[]>("COMMIT");
    this.#state = db
      .prepare<[Uint8Array], 0 | 1>("SELECT live FROM chunks WHERE digest = ?")
      .pluck();
    this.#chunk = db
      .prepare<[Uint8Array], LocationRow>(
        `SELECT pack, "offset", stored_size, size, codec, checksum FROM chunks WHERE digest = ? AND live`,
      )
      .raw();
    this.#lists = new StoredLists(db);
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

  /**
   * Keeps reading from one state of the index until it is disposed of, in the same turn of the event loop: each look-up
   * then takes a fraction of the time.
   */
  snapshot(): Disposable {
    this.#try(() => this.#begin.run());
    return { [Symbol.dispose]: () => void this.#try(() => this.#commit.run()) };
  }

  /** Tells whether there is no chunk at all. */
  isEmpty(): boolean {
    return this.#try(() => this.#any.get()) === undefined;
  }

  /** Tells whether a chunk is stored, and used by a blob. */
  stateOf(digest: B3Digest): ChunkState {
    const live = this.#try(() => this.#state.get(digest.bytes));
    if (live === undefined) return "absent";
    return live === 1 ? "live" : "unused";
  }

  /**
   * Returns where a chunk is that some blob uses; `undefined` if there is none of that digest.
   *
   * @throws CastoreError `data_loss` if the index is damaged
   */
  findChunk(digest: B3Digest): ChunkLocation | undefined {
    const row = this.#try(() => this.#chunk.get(digest.bytes));
    if (row === undefined) return undefined;
    const [pack, offset, storedSize, size, codec, checksum] = row;
    const isPossible = row.every((number) => Number.isSafeInteger(number) && number >= 0);
    if (!isPossible || storedSize > MAX_CHUNK_BYTES || size > MAX_CHUNK_BYTES) {
      throw new CastoreError(
        "data_loss",
        `Cannot use database "${pathOf(this.#db)}": the row of chunk ${digest} is damaged`,
      );
    }
    return { pack, offset, storedSize, size, codec, checksum };
  }

  /** Returns what {@link findChunk} does of up to some hundred chunks, each in a fraction of the time. */
  findChunks(digests: readonly B3Digest[]): (ChunkLocation | undefined)[] {
    using _ = this.snapshot();
    return digests.map((digest) => this.findChunk(digest));
  }

  /** Returns the chunks of a blob that has two or more; `undefined` if there is none of that digest. */
  async findBlob(
    digest: B3Digest,
    options?: AbortOptions,
  ): Promise<ChunkList | "damaged" | undefined> {
    const found = await this.#readList(digest, options);
    // Another process may have removed it in the middle, and stored it anew.
    return found === "damaged" ? await this.#readList(digest, options) : found;
  }

  /** Tells whether a blob of two or more chunks is there. */
  hasBlob(digest: B3Digest): boolean {
    return this.#try(() => this.#lists.has(digest));
  }

  /** Returns length and number of chunks of a blob that has two or more; `undefined` if there is none. */
  statBlob(digest: B3Digest): BlobStat | undefined {
    return this.#try(() => this.#lists.stat(digest));
  }

  [Symbol.dispose](): void {
    closeDatabase(this.#db);
  }

  async #readList(
    digest: B3Digest,
    options?: AbortOptions,
  ): Promise<ChunkList | "damaged" | undefined> {
    const steps = this.#lists.read(digest);
    for (let rows = 1; ; rows++) {
      options?.signal?.throwIfAborted();
      const { done, value } = this.#try(() => steps.next());
      if (done) return value;
      if (rows % ROWS_PER_TURN === 0) await yieldToEvents();
    }
  }

  #try<T>(query: () => T): T {
    try {
      return query();
    } catch (error) {
      throw sqliteError(error, `Cannot read from database "${pathOf(this.#db)}"`);
    }
  }
}
