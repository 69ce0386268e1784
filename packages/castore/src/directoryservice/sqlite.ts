import type { AbortOptions } from "../bytes/abort-options.ts";
import { inTurns } from "../bytes/turns.ts";
import { databaseSize } from "../disk/file-sizes.ts";
import { KeyValueTable, type Row } from "../disk/key-value-table.ts";
import { SpillTable } from "../disk/spill-table.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import type { Measured, StoreStatistics } from "../model/statistics.ts";
import type { DirectoryPutter, DirectoryService, RecursiveOptions } from "./directory-service.ts";
import { decodeDirectoryOf } from "./encoded-directory.ts";
import { StagedTree, type TreeStage } from "./staged-tree.ts";
import { traverseDirectory } from "./traverse.ts";

/** What {@link SqliteDirectoryService.open} is told. */
export interface SqliteDirectoryOptions extends AbortOptions {
  /** The database file, or `":memory:"` for a temporary one. */
  path: string;
  /** Is told of damaged rows that were met, and removed. Default: a process warning. */
  onCorrupt?: (message: string) => void;
}

/** "TvxD": the application id of these databases. */
const APPLICATION_ID = 0x54767844;

/** How many directories are read, and how many looked up, before other events get their turn. */
const READS_PER_TURN = 32;
const LOOKUPS_PER_TURN = 512;

/** How many directories are written to a temporary file before that. */
const WRITES_PER_TURN = 512;

/** How many bytes of a tree wait in memory, and one directory more; those of a larger one wait in a temporary file. */
const STAGE_IN_MEMORY = 2 * 1024 * 1024;

/** What a row in memory takes beside its data, in bytes: most directories are smaller than that. */
const ROW_OVERHEAD = 560;

/**
 * Keeps directories in a SQLite database: one table `directories` from digest to canonical encoding. A
 * tree becomes visible in one transaction.
 */
export class SqliteDirectoryService implements DirectoryService, Measured {
  readonly #table: KeyValueTable;
  readonly #path: string;
  readonly #onCorrupt: (message: string) => void;

  private constructor(table: KeyValueTable, path: string, onCorrupt: (message: string) => void) {
    this.#table = table;
    this.#path = path;
    this.#onCorrupt = onCorrupt;
  }

  /**
   * Opens a database, or creates it.
   *
   * @throws CastoreError `invalid_argument` for a file of another kind, `data_loss` for a damaged one,
   *   `unavailable` while another process holds it
   */
  static async open(options: SqliteDirectoryOptions): Promise<SqliteDirectoryService> {
    const table = await KeyValueTable.open({
      path: options.path,
      applicationId: APPLICATION_ID,
      table: "directories",
      keyColumn: "digest",
      signal: options.signal,
    });
    return new SqliteDirectoryService(
      table,
      options.path,
      options.onCorrupt ?? ((message) => process.emitWarning(message)),
    );
  }

  /** Returns how much the database holds. */
  async statistics(): Promise<StoreStatistics> {
    return await databaseSize(this.#path);
  }

  async get(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    options?.signal?.throwIfAborted();
    return this.#get(digest);
  }

  getMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (Directory | undefined)[]> {
    return inTurns(digests, READS_PER_TURN, (digest) => this.#get(digest), options);
  }

  hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    const has = ({ bytes }: B3Digest) => this.#table.has(bytes);
    return inTurns(digests, LOOKUPS_PER_TURN, has, options);
  }

  getRecursive(digest: B3Digest, options?: RecursiveOptions): AsyncIterable<Directory> {
    return traverseDirectory((digests) => this.getMany(digests), digest, options);
  }

  openPutter(options?: AbortOptions): DirectoryPutter {
    return new StagedTree(stageFor(this.#table), options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#table[Symbol.asyncDispose]();
  }

  #get(digest: B3Digest): Directory | undefined {
    const data = this.#table.get(digest.bytes);
    if (data === undefined) return undefined;
    try {
      return decodeDirectoryOf(digest, data);
    } catch (error) {
      if (!(error instanceof CastoreError) || error.code !== "data_loss") throw error;
      this.#onCorrupt(error.message);
      // Nobody waits: another process may hold the lock, or the disk be full. A row that stays is met
      // again, and replaced when the directory is put.
      this.#table.remove([digest.bytes, data]).catch(() => undefined);
      return undefined;
    }
  }
}

/** Keeps a tree in memory while it is small, and in a temporary file if not. */
function stageFor(table: KeyValueTable): TreeStage {
  let rows: Row[] = [];
  let bytes = 0;
  let spilled: SpillTable | undefined;
  function* all(): Generator<Row> {
    if (spilled !== undefined) yield* spilled.entries();
    yield* rows;
  }
  return {
    async add({ digest, bytes: data }) {
      if (spilled === undefined && bytes >= STAGE_IN_MEMORY) {
        const table = new SpillTable();
        spilled = table;
        await inTurns(rows, WRITES_PER_TURN, ([key, data]) => table.add(key, data));
        rows = [];
      }
      if (spilled !== undefined) {
        spilled.add(digest.bytes, data);
        return;
      }
      rows.push([digest.bytes, data]);
      bytes += data.length + ROW_OVERHEAD;
    },
    commit: (options) => table.put({ [Symbol.iterator]: all }, options),
    discard() {
      rows = [];
      spilled?.[Symbol.dispose]();
    },
  };
}
