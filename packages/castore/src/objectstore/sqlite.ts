import { join, resolve } from "node:path";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { concatBytes, copyBytes } from "../bytes/byte-string.ts";
import { KeyValueTable, type Row } from "../disk/key-value-table.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import { CastoreError } from "../model/errors.ts";
import { resolveRange } from "../model/range.ts";
import { FileObjectStore } from "./file.ts";
import { assertObjectKey } from "./object-key.ts";
import type {
  DeleteObjectOptions,
  GetObjectOptions,
  ListObjectsOptions,
  ObjectContents,
  ObjectHead,
  ObjectMeta,
  ObjectStore,
  ObjectUpload,
  PutObjectOptions,
} from "./object-store.ts";
import { contentsOf } from "./read-parts.ts";

/** Name of the database in the folder. No key has a `~` in it. */
const DATABASE = "~objects.sqlite";

/** "TvxO": the application id of these databases. */
const APPLICATION_ID = 0x5476784f;

/** Longest object that is a row of the database, in bytes. */
const MAX_ROW_BYTES = 64 * 1024;

/** How many rows are read for a listing at a time. */
const PAGE_LENGTH = 500;

/**
 * Keeps small objects in a SQLite database and longer ones in files beside it, in a folder of which several processes may
 * make use. To store a small object takes one write to a log, which others share, where a file takes a dozen calls of the
 * system. A folder of {@link FileObjectStore} can be opened: its objects are there.
 *
 * A key may have both a row and a file for a moment, while one replaces the other: the row counts.
 */
export class SqliteObjectStore implements ObjectStore {
  readonly name: string;
  readonly #rows: KeyValueTable;
  readonly #files: FileObjectStore;

  private constructor(path: string, rows: KeyValueTable) {
    this.name = `sqlite://${encodeURI(path)}`;
    this.#rows = rows;
    this.#files = new FileObjectStore(path);
  }

  /**
   * Opens a folder, or creates it.
   *
   * @param path the folder, absolute
   * @throws CastoreError `invalid_argument` for a database of another kind, `data_loss` for a damaged one, `unavailable` while
   *   another process holds it
   */
  static async open(path: string, options?: AbortOptions): Promise<SqliteObjectStore> {
    const rows = await KeyValueTable.open({
      path: join(resolve(path), DATABASE),
      applicationId: APPLICATION_ID,
      table: "objects",
      keyColumn: "key",
      isSeenEarly: true,
      signal: options?.signal,
    });
    return new SqliteObjectStore(path, rows);
  }

  async get(key: string, options?: GetObjectOptions): Promise<ObjectContents | undefined> {
    assertObjectKey(key);
    options?.signal?.throwIfAborted();
    const data = this.#rows.get(bytesOf(key));
    if (data === undefined) {
      return this.#files.mayHave(key) ? await this.#files.get(key, options) : undefined;
    }
    const { start, end } = resolveRange(data.length, options);
    return contentsOf(data.subarray(start, end), versionOf(data));
  }

  async head(key: string, options?: AbortOptions): Promise<ObjectHead | undefined> {
    assertObjectKey(key);
    options?.signal?.throwIfAborted();
    const data = this.#rows.get(bytesOf(key));
    if (data === undefined) {
      return this.#files.mayHave(key) ? await this.#files.head(key, options) : undefined;
    }
    return { key, size: data.length, version: versionOf(data) };
  }

  async put(key: string, data: Uint8Array, options?: PutObjectOptions): Promise<void> {
    assertObjectKey(key);
    options?.signal?.throwIfAborted();
    if (data.length <= MAX_ROW_BYTES) await this.#putRow(key, copyBytes(data), options);
    else await this.#replaceRow(key, () => this.#files.put(key, data, options), options);
  }

  openUpload(key: string, options?: PutObjectOptions): ObjectUpload {
    assertObjectKey(key);
    const ended = () =>
      new CastoreError("invalid_argument", `Cannot store "${key}": the upload has ended`);
    /** What was written, as long as it is small. */
    let pieces: Uint8Array[] = [];
    let length = 0;
    let file: ObjectUpload | undefined;
    let closed: Promise<void> | undefined;
    let isOver = false;
    const close = async () => {
      options?.signal?.throwIfAborted();
      const upload = file;
      if (upload === undefined) await this.#putRow(key, concatBytes(pieces), options);
      else await this.#replaceRow(key, () => upload.close(), options);
    };
    return {
      write: async (data) => {
        if (isOver || closed) throw ended();
        options?.signal?.throwIfAborted();
        length += data.length;
        if (file === undefined && length <= MAX_ROW_BYTES) {
          pieces.push(copyBytes(data));
          return;
        }
        file ??= this.#files.openUpload(key, options);
        for (const piece of [...pieces, data]) await file.write(piece);
        pieces = [];
      },
      close: () => {
        if (isOver) return Promise.reject(ended());
        closed ??= close();
        return closed;
      },
      [Symbol.asyncDispose]: async () => {
        isOver = true;
        await closed?.catch(() => undefined); // close() has told
        await file?.[Symbol.asyncDispose]();
      },
    };
  }

  async *list(prefix: string, options: ListObjectsOptions = {}): AsyncGenerator<ObjectMeta> {
    const { signal } = options;
    signal?.throwIfAborted();
    const rows = this.#listRows(prefix, options);
    let row = rows.next().value;
    for await (const file of this.#files.list(prefix, options)) {
      for (; row && row.key < file.key; row = rows.next().value) yield row;
      signal?.throwIfAborted();
      if (row?.key !== file.key) yield file;
    }
    for (; row; row = rows.next().value) {
      signal?.throwIfAborted();
      yield row;
    }
  }

  async delete(key: string, options: DeleteObjectOptions = {}): Promise<void> {
    assertObjectKey(key);
    options.signal?.throwIfAborted();
    const { version } = options;
    if (version === undefined) {
      await this.#rows.removeKey(bytesOf(key), options);
    } else {
      const data = this.#rows.get(bytesOf(key));
      if (data !== undefined && version === versionOf(data)) {
        await this.#rows.remove([bytesOf(key), data], options);
      }
      if (data !== undefined) return; // and so no file counts
    }
    if (this.#files.mayHave(key)) await this.#files.delete(key, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#rows[Symbol.asyncDispose]();
    await this.#files[Symbol.asyncDispose]();
  }

  /** Stores a row, and deletes the file that it replaces. */
  async #putRow(key: string, data: Uint8Array, options?: PutObjectOptions): Promise<void> {
    const file = this.#files.mayHave(key) ? await this.#files.head(key, options) : undefined;
    await this.#rows.put([[bytesOf(key), data]], options);
    if (file !== undefined) await this.#files.delete(key, { ...options, version: file.version! });
  }

  /** Has a file stored, and removes the row that it replaces. */
  async #replaceRow(
    key: string,
    store: () => Promise<void>,
    options?: PutObjectOptions,
  ): Promise<void> {
    const data = this.#rows.get(bytesOf(key));
    await store();
    if (data !== undefined) await this.#rows.remove([bytesOf(key), data], options);
  }

  *#listRows(
    prefix: string,
    { after = "" }: ListObjectsOptions,
  ): Generator<ObjectMeta, undefined, undefined> {
    // The last key that sorts before all others with the prefix, unless they begin behind it.
    let last = after > prefix ? after : prefix.slice(0, -1);
    for (;;) {
      const rows: readonly Row[] = this.#rows.page(bytesOf(last), PAGE_LENGTH);
      if (rows.length === 0) return;
      for (const [bytes, { length }] of rows) {
        last = Buffer.from(bytes).toString("latin1");
        if (last.startsWith(prefix)) {
          if (last > after) yield { key: last, size: length };
        } else if (last > prefix) return;
      }
    }
  }
}

/** Returns the bytes of a key, which is ASCII. */
function bytesOf(key: string): Uint8Array {
  return Buffer.from(key, "latin1");
}

/** Returns the version of a row: objects of the same contents have the same. */
function versionOf(data: Uint8Array): string {
  return blake3Digest(data).hex;
}
