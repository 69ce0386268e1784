import {
  beginWrite,
  closeDatabase,
  commit,
  openDatabase,
  pathOf,
  rollback,
  sqliteError,
} from "../../disk/database.ts";
import type { Database } from "../../disk/sqlite.ts";
import type { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { type ChunkLocation, INDEX_FORMAT } from "./chunk-index.ts";
import { ListWriter } from "./stored-lists.ts";

/** The pack that is being filled. */
export interface OpenPack {
  readonly pack: number;
  /** How much of it is committed; whatever stands behind is of no account. */
  readonly size: number;
}

/** Changes what `ChunkIndex` reads. */
export class IndexWriter implements Disposable {
  readonly #db: Database;
  readonly #statements;
  readonly #lists: ListWriter;
  /** Whether commits wait for the disk. */
  #isSyncing = true;

  /** @param db a connection to an index, whose commits do */
  constructor(db: Database) {
    this.#db = db;
    this.#lists = new ListWriter(db);
    this.#statements = {
      isLive: db.prepare<[Uint8Array], 0 | 1>("SELECT live FROM chunks WHERE digest = ?").pluck(),
      openPack: db
        .prepare<[], [number, number]>("SELECT id, size FROM packs ORDER BY id DESC LIMIT 1")
        .raw(),
      setPack: db.prepare<[number, number]>(
        "INSERT INTO packs VALUES (?, ?) ON CONFLICT DO UPDATE SET size = excluded.size",
      ),
      addChunk: db.prepare<[Uint8Array, number, number, number, number, number, number, number]>(
        `INSERT INTO chunks (digest, pack, "offset", stored_size, size, codec, checksum, live)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      ),
      useChunk: db.prepare<[Uint8Array]>("UPDATE chunks SET live = 1 WHERE digest = ?"),
      removeChunk: db.prepare<[Uint8Array, number, number]>(
        `DELETE FROM chunks WHERE digest = ? AND pack = ? AND "offset" = ?`,
      ),
    };
  }

  /**
   * Opens an index that is there.
   *
   * @throws CastoreError as `openDatabase`; `unavailable` if there is none
   */
  static async open(path: string): Promise<IndexWriter> {
    const fill = async () => {
      // A new one would not know what is stored already, and nobody would make it anew from the packs.
      throw new CastoreError(
        "unavailable",
        `Cannot write to index "${path}": it was removed while the store is open, open the store again`,
      );
    };
    return new IndexWriter(await openDatabase(path, INDEX_FORMAT, { fill }));
  }

  /**
   * Runs `body`, one at a time, while this process alone may change the index and its packs. All changes are made
   * when it resolves; none is when it rejects, or `body` returns `false`.
   *
   * @param options.undo takes back what `body` did outside of the index, if that fails or cannot be committed. Default:
   *   nothing
   * @param options.isDurable whether the changes are durable then. Others are with the next ones that are. Default: true
   */
  async change(
    body: () => unknown,
    { undo = () => undefined, isDurable = true }: { undo?: () => void; isDurable?: boolean } = {},
  ): Promise<void> {
    try {
      this.#syncCommits(isDurable);
      await beginWrite(this.#db);
      if ((await body()) === false) rollback(this.#db);
      else commit(this.#db);
    } catch (error) {
      if (this.#db.inTransaction) undo();
      rollback(this.#db);
      throw sqliteError(error, `Cannot write to database "${pathOf(this.#db)}"`);
    }
  }

  /** The pack that is being filled; `undefined` before the first. */
  openPack(): OpenPack | undefined {
    const row = this.#statements.openPack.get();
    return row && { pack: row[0], size: row[1] };
  }

  /** Notes how much of a pack is used. */
  setPack({ pack, size }: OpenPack): void {
    this.#statements.setPack.run(pack, size);
  }

  /** Whether a chunk is stored and used by a blob, also by another process just now. */
  isLive(digest: B3Digest): boolean {
    return this.#statements.isLive.get(digest.bytes) === 1;
  }

  /** Whether a chunk is stored, also by another process just now. */
  isKnown(digest: B3Digest): boolean {
    return this.#statements.isLive.get(digest.bytes) !== undefined;
  }

  /** @param live whether a blob uses it */
  addChunk(digest: B3Digest, location: ChunkLocation, live: boolean): void {
    const { pack, offset, storedSize, size, codec, checksum } = location;
    this.#statements.addChunk.run(
      digest.bytes,
      pack,
      offset,
      storedSize,
      size,
      codec,
      checksum,
      live ? 1 : 0,
    );
  }

  /** Notes that a blob uses a chunk; tells whether that is stored. */
  useChunk(digest: B3Digest): boolean {
    const isLive = this.#statements.isLive.get(digest.bytes);
    if (isLive === 0) this.#statements.useChunk.run(digest.bytes);
    return isLive !== undefined;
  }

  /** Whether a blob of two or more chunks is there. */
  hasBlob(digest: B3Digest): boolean {
    return this.#lists.has(digest);
  }

  /** Makes a blob of two or more chunks readable, all of which are stored. The list is packed. */
  addBlob(digest: B3Digest, list: Uint8Array): void {
    this.#lists.add(digest, list);
  }

  /** Forgets a chunk, unless it is stored elsewhere by now, and the blobs that use it. */
  forgetChunk(digest: B3Digest, location: ChunkLocation | undefined): void {
    if (location) this.#statements.removeChunk.run(digest.bytes, location.pack, location.offset);
    if (!this.isKnown(digest)) this.#lists.removeUsers(digest);
  }

  /** Forgets a blob whose list of chunks is damaged, unless it has another one by now. */
  forgetBlob(digest: B3Digest): void {
    this.#lists.removeDamaged(digest);
  }

  [Symbol.dispose](): void {
    closeDatabase(this.#db);
  }

  /** Sets whether commits wait for the disk. One that does makes those before it durable, too: all are in one log. */
  #syncCommits(isSyncing: boolean): void {
    if (this.#isSyncing === isSyncing) return;
    this.#db.pragma(`synchronous = ${isSyncing ? "FULL" : "NORMAL"}`);
    this.#isSyncing = isSyncing;
  }
}
