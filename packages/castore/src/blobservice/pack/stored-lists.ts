import type { Statement } from "better-sqlite3";
import type { Database } from "../../disk/sqlite.ts";
import { blake3 } from "../../hash/blake3.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import type { BlobStat } from "../blob-service.ts";
import { ChunkList, ChunkListBuilder } from "../chunk-list.ts";
import { MAX_LIST_BYTES } from "./format.ts";

/** How many chunks stand in one row: long lists are read and written row by row, so that no step takes long. */
const ROW_CHUNKS = 4096;

/** A list; `damaged` if its rows do not hash to the digest that was stored with it. */
type Found = ChunkList | "damaged" | undefined;

/**
 * The lists of chunks of blobs of two or more, in rows of up to 4,096 chunks. The BLAKE3 digest of a packed list is
 * stored beside it, so that one that was damaged since it was committed is not believed.
 */
export class StoredLists {
  readonly #head: Statement<[Uint8Array], [size: number, count: number, list: Uint8Array]>;
  readonly #row: Statement<[Uint8Array, number], Uint8Array>;

  /** @param db a connection to an index */
  constructor(db: Database) {
    this.#head = db
      .prepare<[Uint8Array], [number, number, Uint8Array]>(
        "SELECT size, count, list FROM blobs WHERE digest = ?",
      )
      .raw();
    this.#row = db
      .prepare<[Uint8Array, number], Uint8Array>(
        "SELECT chunks FROM lists WHERE digest = ? AND first = ?",
      )
      .pluck();
  }

  /** Tells whether a blob of two or more chunks is there. */
  has(digest: B3Digest): boolean {
    return this.#head.get(digest.bytes) !== undefined;
  }

  /** Returns length and number of chunks of a blob of two or more; `undefined` if there is none. */
  stat(digest: B3Digest): BlobStat | undefined {
    const head = this.#head.get(digest.bytes);
    return head && { size: head[0], chunks: head[1] };
  }

  /** Reads a list in steps, a row each; returns `undefined` in the end if there is none. */
  *read(digest: B3Digest): Generator<void, Found> {
    const head = this.#head.get(digest.bytes);
    if (head === undefined) return undefined;
    const [size, count, list] = head;
    if (count * ChunkList.ENTRY_BYTES > MAX_LIST_BYTES) return "damaged";
    const hasher = blake3.createHasher();
    const builder = new ChunkListBuilder(count);
    let isWhole = true;
    try {
      while (builder.length < count) {
        const row = this.#row.get(digest.bytes, builder.length);
        if (row === undefined || row.length === 0) break;
        hasher.update(row);
        builder.append(row);
        yield;
      }
    } catch (error) {
      if (!(error instanceof CastoreError)) throw error;
      isWhole = false; // a row is no list
    } finally {
      // Also where it is of no use: it frees memory.
      const found = B3Digest.fromBytes(hasher.digest());
      isWhole &&= builder.length === count && builder.size === size;
      isWhole &&= Buffer.compare(found.bytes, list) === 0;
    }
    return isWhole ? builder.finish() : "damaged";
  }
}

/** Changes what {@link StoredLists} reads. Within transactions. */
export class ListWriter {
  readonly #lists: StoredLists;
  readonly #statements;

  constructor(db: Database) {
    this.#lists = new StoredLists(db);
    this.#statements = {
      addHead: db.prepare<[Uint8Array, number, number, Uint8Array]>(
        "INSERT INTO blobs (digest, size, count, list) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
      ),
      addRow: db.prepare<[Uint8Array, number, Uint8Array]>(
        "INSERT INTO lists (digest, first, chunks) VALUES (?, ?, ?)",
      ),
      removeHead: db.prepare<[Uint8Array]>("DELETE FROM blobs WHERE digest = ?"),
      removeRows: db.prepare<[Uint8Array]>("DELETE FROM lists WHERE digest = ?"),
      users: db
        .prepare<[Uint8Array], Uint8Array>(
          "SELECT DISTINCT digest FROM lists WHERE instr(chunks, ?) > 0",
        )
        .pluck(),
    };
  }

  /** Tells whether a blob of two or more chunks is there. */
  has(digest: B3Digest): boolean {
    return this.#lists.has(digest);
  }

  /** Adds a packed list, unless there is one of that blob. */
  add(digest: B3Digest, bytes: Uint8Array): void {
    if (this.has(digest)) return;
    const list = ChunkList.fromBytes(bytes);
    const { addHead, addRow, removeRows } = this.#statements;
    removeRows.run(digest.bytes);
    addHead.run(digest.bytes, list.size, list.length, blake3.hash(list.bytes));
    const rowBytes = ROW_CHUNKS * ChunkList.ENTRY_BYTES;
    for (let at = 0; at < list.bytes.length; at += rowBytes) {
      const row = list.bytes.subarray(at, at + rowBytes);
      addRow.run(digest.bytes, at / ChunkList.ENTRY_BYTES, row);
    }
  }

  /** Removes the list of a blob. */
  remove(digest: Uint8Array): void {
    this.#statements.removeHead.run(digest);
    this.#statements.removeRows.run(digest);
  }

  /** Removes the list of a blob, if it is damaged: it may have been stored anew since that was found. */
  removeDamaged(digest: B3Digest): void {
    const steps = this.#lists.read(digest);
    let step = steps.next();
    while (!step.done) step = steps.next();
    if (step.value === "damaged") this.remove(digest.bytes);
  }

  /** Removes all lists that a chunk is in. */
  removeUsers(chunk: B3Digest): void {
    for (const user of this.#statements.users.all(chunk.bytes)) this.remove(user);
  }
}
