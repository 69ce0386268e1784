import { join } from "node:path";
import type { B3Digest } from "../../digest.ts";
import type { AbortOptions } from "../../options.ts";
import {
  beginWrite,
  type Database,
  openDatabase,
  rollback,
  sqliteError,
  waitForLocks,
} from "../../sqlite/database.ts";
import type { ChunkMeta } from "../blob-service.ts";
import { type Codec, decodeChunkList, encodeChunkList } from "./format.ts";

/** Where a chunk is, and how it is stored. Sizes and offsets in bytes. */
export interface ChunkLocation {
  readonly pack: number;
  /** Where its payload starts. */
  readonly offset: number;
  readonly storedSize: number;
  readonly size: number;
  readonly codec: Codec;
}

/** The pack that is being filled. */
export interface OpenPack {
  readonly pack: number;
  /** How much of it is committed; whatever stands behind is of no account. */
  readonly size: number;
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

const COLUMNS = `pack, "offset", stored_size, size, codec`;
type LocationRow = [pack: number, offset: number, storedSize: number, size: number, codec: Codec];

/** The SQLite database that says where chunks are and what blobs are made of. */
export class ChunkIndex implements Disposable {
  readonly #path: string;
  readonly #reader: Database;
  /** A connection of its own for the transaction, which goes on while others read. */
  readonly #writer: Database;
  readonly #statements;

  private constructor(path: string, reader: Database, writer: Database) {
    this.#path = path;
    this.#reader = reader;
    this.#writer = writer;
    waitForLocks(reader);
    const isKnown = "SELECT 1 FROM chunks WHERE digest = ?";
    const hasBlob = "SELECT 1 FROM blobs WHERE digest = ?";
    this.#statements = {
      isKnown: reader.prepare<[Uint8Array], 1>(isKnown).pluck(),
      isKnownToWriter: writer.prepare<[Uint8Array], 1>(isKnown).pluck(),
      chunk: reader
        .prepare<[Uint8Array], LocationRow>(
          `SELECT ${COLUMNS} FROM chunks WHERE digest = ? AND live`,
        )
        .raw(),
      blob: reader
        .prepare<[Uint8Array], Buffer>("SELECT chunks FROM blobs WHERE digest = ?")
        .pluck(),
      hasBlob: reader.prepare<[Uint8Array], 1>(hasBlob).pluck(),
      openPack: writer
        .prepare<[], [number, number]>("SELECT id, size FROM packs ORDER BY id DESC LIMIT 1")
        .raw(),
      setPack: writer.prepare<[number, number]>(
        "INSERT INTO packs VALUES (?, ?) ON CONFLICT DO UPDATE SET size = excluded.size",
      ),
      addChunk: writer.prepare<[Uint8Array, number, number, number, number, number]>(
        `INSERT INTO chunks (digest, ${COLUMNS}, live) VALUES (?, ?, ?, ?, ?, ?, 0)`,
      ),
      use: writer.prepare<[Uint8Array]>("UPDATE chunks SET live = 1 WHERE digest = ? AND NOT live"),
      hasBlobToWriter: writer.prepare<[Uint8Array], 1>(hasBlob).pluck(),
      addBlob: writer.prepare<[Uint8Array, Uint8Array]>(
        "INSERT INTO blobs VALUES (?, ?) ON CONFLICT DO NOTHING",
      ),
      removeChunk: writer.prepare<[Uint8Array, number, number]>(
        `DELETE FROM chunks WHERE digest = ? AND pack = ? AND "offset" = ?`,
      ),
      removeUsers: writer.prepare<[Uint8Array]>("DELETE FROM blobs WHERE instr(chunks, ?) > 0"),
    };
  }

  /**
   * Opens the index in a folder, or creates it.
   *
   * @throws CastoreError as `openDatabase`
   */
  static async open(folder: string, options?: AbortOptions): Promise<ChunkIndex> {
    const path = join(folder, "index.sqlite");
    const format = { applicationId: APPLICATION_ID, version: 1, schema: SCHEMA };
    const writer = await openDatabase(path, format, options);
    try {
      return new ChunkIndex(path, await openDatabase(path, format, options), writer);
    } catch (error) {
      writer.close();
      throw error;
    }
  }

  /** Whether a chunk is stored, used by a blob or not. */
  isKnown(digest: B3Digest): boolean {
    return this.#try(() => this.#statements.isKnown.get(digest.bytes) !== undefined);
  }

  /** Where a chunk is that some blob uses; `undefined` if there is none of that digest. */
  findChunk(digest: B3Digest): ChunkLocation | undefined {
    const row = this.#try(() => this.#statements.chunk.get(digest.bytes));
    if (row === undefined) return undefined;
    const [pack, offset, storedSize, size, codec] = row;
    return { pack, offset, storedSize, size, codec };
  }

  /** The chunks of a blob that has two or more; `undefined` if there is none of that digest. */
  findBlob(digest: B3Digest): ChunkMeta[] | undefined {
    const list = this.#try(() => this.#statements.blob.get(digest.bytes));
    return list && decodeChunkList(list);
  }

  /** Whether a blob of two or more chunks is there. */
  hasBlob(digest: B3Digest): boolean {
    return this.#try(() => this.#statements.hasBlob.get(digest.bytes) !== undefined);
  }

  /**
   * Runs `body` while this process alone may change the index and its packs. All changes are durable
   * when it resolves; none is made when it rejects.
   *
   * @param undo takes back what `body` did outside of the index, if that fails or cannot be committed
   */
  async change(
    body: (changes: IndexChanges) => Promise<void>,
    undo: () => Promise<void>,
  ): Promise<void> {
    try {
      await beginWrite(this.#writer);
      await body(this.#changes());
      this.#writer.exec("COMMIT");
    } catch (error) {
      if (this.#writer.inTransaction) await undo();
      rollback(this.#writer);
      throw sqliteError(error, `Cannot write to database "${this.#path}"`);
    }
  }

  [Symbol.dispose](): void {
    this.#reader.close();
    this.#writer.close();
  }

  #changes(): IndexChanges {
    const statements = this.#statements;
    return {
      openPack() {
        const row = statements.openPack.get();
        return row && { pack: row[0], size: row[1] };
      },
      setPack: ({ pack, size }) => void statements.setPack.run(pack, size),
      isKnown: ({ bytes }) => statements.isKnownToWriter.get(bytes) !== undefined,
      addChunk({ bytes }, { pack, offset, storedSize, size, codec }) {
        statements.addChunk.run(bytes, pack, offset, storedSize, size, codec);
      },
      hasBlob: ({ bytes }) => statements.hasBlobToWriter.get(bytes) !== undefined,
      addBlob({ bytes }, chunks) {
        for (const { digest } of chunks) statements.use.run(digest.bytes);
        if (chunks.length > 1) statements.addBlob.run(bytes, encodeChunkList(chunks));
      },
      forgetChunk({ bytes }, location) {
        if (location) statements.removeChunk.run(bytes, location.pack, location.offset);
        const isThere = statements.isKnownToWriter.get(bytes) !== undefined;
        if (!isThere) statements.removeUsers.run(bytes);
      },
    };
  }

  #try<T>(query: () => T): T {
    try {
      return query();
    } catch (error) {
      throw sqliteError(error, `Cannot read from database "${this.#path}"`);
    }
  }
}

/** What can be done within {@link ChunkIndex.change}. */
export interface IndexChanges {
  /** The pack that is being filled; `undefined` before the first. */
  openPack(): OpenPack | undefined;
  /** Notes how much of a pack is used. */
  setPack(pack: OpenPack): void;
  /** Whether a chunk is stored, also by another process just now. */
  isKnown(digest: B3Digest): boolean;
  addChunk(digest: B3Digest, location: ChunkLocation): void;
  /** Whether a blob of two or more chunks is there. */
  hasBlob(digest: B3Digest): boolean;
  /** Makes a blob readable, all of whose chunks are stored. */
  addBlob(digest: B3Digest, chunks: readonly ChunkMeta[]): void;
  /** Forgets a chunk, unless it is stored elsewhere by now, and the blobs that use it. */
  forgetChunk(digest: B3Digest, location: ChunkLocation | undefined): void;
}
